"""The controller: everything below it, put together.

Five words: the *registry* knows hosts, their workloads and their proxies, under *leases*; the *pipeline*
makes facts into snapshots and finds the names that a change affects; the *hub* knows who watches which name;
a *feed* is what one proxy has been sent of what it wants.

At start everything that the store remembers is served at once, and nothing is withdrawn for one lease: agents
come back in their own time. When idle, the controller renews leases and nothing else. If it dies, agents
serve what they hold; a restarted one makes the same bytes and sends nothing twice.
"""
