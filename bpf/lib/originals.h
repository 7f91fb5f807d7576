/* Where a connection was going: written before its SYN is sent, read when the proxy asks.
 *
 * A hash map would take a lock for each connection, the dearest part of a captured connect() (1.1 us of 30 where
 * it was measured). So the usual case, a client at the workload's own address, takes a slot of an array: free, or
 * read already, or its own. Taking is one compare-and-swap. A slot that another connection still needs sends
 * us to the hash map, which holds any tuple.
 */
#ifndef RETIA_ORIGINALS_H
#define RETIA_ORIGINALS_H

#include "maps.h"

#define SLOTS 65536

enum slot_state {
	SLOT_FREE,
	SLOT_BUSY,  /* being written */
	SLOT_READY, /* not yet asked for */
	SLOT_READ,
	SLOT_STATES = 3, /* mask */
};

/* Has room for the last two bytes of the app address, which are the workload's number: the first two are the
 * mesh's. */
INLINE __u64 slot_key(const struct tuple *tuple)
{
	return (__u64)(tuple->server >> 16) << 34 | (__u64)tuple->client_port << 18 | (__u64)tuple->server_port << 2;
}

INLINE struct slot *slot_of(const struct tuple *tuple)
{
	__u32 index = tuple->client_port ^ tuple->server_port * 5 ^ (tuple->server >> 16) * 40503;

	if (tuple->client != tuple->server)
		return NULL;
	index %= SLOTS;
	return bpf_map_lookup_elem(&slots, &index);
}

INLINE void put_original(const struct tuple *tuple, const struct address_port *original)
{
	struct slot *slot = slot_of(tuple);
	__u64 key = slot_key(tuple), old;

	if (slot) {
		old = *(volatile __u64 *)&slot->key;
		if ((old & SLOT_STATES) == SLOT_FREE || (old & SLOT_STATES) == SLOT_READ ||
		    old == (key | SLOT_READY)) {
			if (__sync_val_compare_and_swap(&slot->key, old, key | SLOT_BUSY) == old) {
				slot->original = *original;
				__sync_val_compare_and_swap(&slot->key, key | SLOT_BUSY, key | SLOT_READY);
				return;
			}
		}
	}
	bpf_map_update_elem(&originals, tuple, original, BPF_ANY);
}

/* Whether a destination has been put. */
INLINE int has_original(const struct tuple *tuple)
{
	struct slot *slot = slot_of(tuple);

	if (slot && *(volatile __u64 *)&slot->key == (slot_key(tuple) | SLOT_READY))
		return 1;
	return bpf_map_lookup_elem(&originals, tuple) != NULL;
}

/* Free the slot of a connection that the proxy will not ask about: it came to nothing. */
INLINE void drop_original(const struct tuple *tuple)
{
	struct slot *slot = slot_of(tuple);

	if (slot)
		__sync_val_compare_and_swap(&slot->key, slot_key(tuple) | SLOT_READY, SLOT_FREE);
}

/* 1 and the destination, or 0. May be asked again. */
INLINE int get_original(const struct tuple *tuple, struct address_port *original)
{
	struct slot *slot = slot_of(tuple);
	struct address_port *found;
	__u64 key = slot_key(tuple), now;

	if (slot) {
		now = *(volatile __u64 *)&slot->key;
		if (now == (key | SLOT_READY) || now == (key | SLOT_READ)) {
			*original = slot->original;
			if (__sync_val_compare_and_swap(&slot->key, now, key | SLOT_READ) == now)
				return 1;
		}
	}
	found = bpf_map_lookup_elem(&originals, tuple);
	if (!found)
		return 0;
	*original = *found;
	return 1;
}

#endif
