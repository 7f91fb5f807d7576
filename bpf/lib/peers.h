/* What a connecting socket asked for, for as long as it lives.
 *
 * A socket's own storage (`sockets`) would do, but making it costs two allocations, 7 % of a connect() where it was
 * measured. So a socket that goes to the proxy first tries one place of an array, by its cookie (cookies count
 * up, so they spread evenly). A place that another living socket holds sends us to the storage. The release
 * program frees the place when the socket is closed.
 */
#ifndef RETIA_PEERS_H
#define RETIA_PEERS_H

#include "maps.h"

#define PEERS 65536

INLINE struct peer *peer_place(__u64 cookie)
{
	__u32 index = cookie % PEERS;

	return bpf_map_lookup_elem(&peers, &index);
}

/* The socket's place, if it has one. */
INLINE struct peer *peer_of(__u64 cookie)
{
	struct peer *place = peer_place(cookie);

	return place && place->cookie == cookie ? place : NULL;
}

/* A place for the socket, or NULL. Connects of one socket do not run side by side: the kernel holds its lock. */
INLINE struct peer *take_peer(__u64 cookie)
{
	struct peer *place = peer_place(cookie);

	if (!place)
		return NULL;
	if (place->cookie == cookie || !__sync_val_compare_and_swap(&place->cookie, 0, cookie))
		return place;
	return NULL;
}

INLINE void release_peer(__u64 cookie)
{
	struct peer *place = peer_of(cookie);

	if (place)
		__sync_val_compare_and_swap(&place->cookie, cookie, 0);
}

#endif
