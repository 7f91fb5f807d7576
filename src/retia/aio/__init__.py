"""Helpers around asyncio: clocks, pauses between attempts, tasks with parents, gRPC servers.

Nothing here knows of meshes.
"""
