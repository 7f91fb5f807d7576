"""The two doors of a mesh: the controller's HTTP API and the agent's local socket.

Five words: the *schema* is the HTTP API's types; the *backend* is what a controller has to offer so that the
*server* can serve it; the *client* is the command line's side of it; the *local* protocol is JSON lines
between a program on this host and its agent, which knows from the socket who asks.

This is the public interface: the command line uses nothing else.
"""
