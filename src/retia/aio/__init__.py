"""Helpers around asyncio: clocks, pauses between attempts, tasks with parents, gRPC servers;
and what the kernel says about unix sockets.

Nothing here knows of meshes.
"""
