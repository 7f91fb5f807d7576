/* Who is it: from a task, a packet's receiver or a socket to the member of the mesh.
 *
 * A workload may make cgroups below its own, and the mesh's cgroup may itself stand anywhere in the tree (a
 * container's cgroup namespace). So the exact cgroup is tried first, then every ancestor from the root.
 */
#ifndef RETIA_MEMBER_H
#define RETIA_MEMBER_H

#include "maps.h"

/* Deeper trees are not seen through. Arbitrary; systemd's deepest is about 6. */
#define MAX_DEPTH 16

INLINE struct member *member_of(__u64 id)
{
	return bpf_map_lookup_elem(&members, &id);
}

INLINE struct member *current_member(void)
{
	struct member *found = member_of(bpf_get_current_cgroup_id());

	if (found)
		return found;
#pragma clang loop unroll(disable)
	for (int level = 1; level < MAX_DEPTH; level++) {
		__u64 id = bpf_get_current_ancestor_cgroup_id(level);

		if (!id)
			break;
		found = member_of(id);
		if (found)
			return found;
	}
	return NULL;
}

INLINE struct member *current_workload(void)
{
	struct member *found = current_member();

	return found && found->role == ROLE_WORKLOAD ? found : NULL;
}

INLINE struct member *receiver_of(struct __sk_buff *skb)
{
	struct member *found = member_of(bpf_skb_cgroup_id(skb));

	if (found)
		return found;
#pragma clang loop unroll(disable)
	for (int level = 1; level < MAX_DEPTH; level++) {
		__u64 id = bpf_skb_ancestor_cgroup_id(skb, level);

		if (!id)
			break;
		found = member_of(id);
		if (found)
			return found;
	}
	return NULL;
}

/* The member that owns a socket, and its cgroup's id in `*cgroup`. */
INLINE struct member *owner_of(struct bpf_sock *sk, __u64 *cgroup)
{
	struct member *found;

	*cgroup = bpf_sk_cgroup_id(sk);
	found = member_of(*cgroup);
	if (found)
		return found;
#pragma clang loop unroll(disable)
	for (int level = 1; level < MAX_DEPTH; level++) {
		__u64 id = bpf_sk_ancestor_cgroup_id(sk, level);

		if (!id)
			break;
		found = member_of(id);
		if (found) {
			*cgroup = id;
			return found;
		}
	}
	return NULL;
}

INLINE int is_loopback(__u32 address)
{
	return (address & host_to_net32(0xff000000)) == host_to_net32(0x7f000000);
}

INLINE int is_mapped(const struct bpf_sock_addr *ctx)
{
	return ctx->user_ip6[0] == 0 && ctx->user_ip6[1] == 0 && ctx->user_ip6[2] == host_to_net32(0xffff);
}

/* Whether a program listens at exactly this address (not at 0.0.0.0). */
INLINE int is_listening(void *ctx, __u32 address, __u16 port)
{
	struct bpf_sock_tuple tuple = {};
	struct bpf_sock *sk;
	int found;

	tuple.ipv4.daddr = address;
	tuple.ipv4.dport = port;
	sk = bpf_sk_lookup_tcp(ctx, &tuple, sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0);
	if (!sk)
		return 0;
	found = sk->state == TCP_LISTEN && sk->src_ip4 == address;
	bpf_sk_release(sk);
	return found;
}

#endif
