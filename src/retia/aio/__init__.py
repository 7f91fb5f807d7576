"""Around asyncio: clocks, pauses between attempts, tasks with parents, gRPC servers, limits of sockets.

Nothing here knows of meshes.
"""
