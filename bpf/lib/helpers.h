/* The kernel's helpers that the programs call, and a few constants that the bundled UAPI headers lack.
 *
 * Numbers are UAPI (enum bpf_func_id in linux/bpf.h). No libbpf header is used, so that zig's bundled kernel
 * headers are all that a build needs. Nothing here may make initialised or constant data: the loader knows
 * maps and code, no .rodata.
 */
#ifndef RETIA_HELPERS_H
#define RETIA_HELPERS_H

#include <linux/bpf.h>
#include <linux/types.h>

#define SEC(name) __attribute__((section(name), used))
#define INLINE static __attribute__((always_inline)) inline
#define NULL ((void *)0)

/* Map definitions are read from BTF, as libbpf's are: a number is the length of an array pointed to. */
#define MAP_NUMBER(name, value) int(*name)[value]
#define MAP_TYPE(name, value) value *name

#define AF_INET 2
#define AF_INET6 10
#define SOCK_STREAM 1
#define SOCK_DGRAM 2
#define ETH_P_IP 0x0800
#define ETH_P_IPV6 0x86dd
#define TCP_CLOSE 7
#define TCP_LISTEN 10

#define host_to_net16(x) __builtin_bswap16(x)
#define host_to_net32(x) __builtin_bswap32(x)

/* Keeps clang from joining neighbouring stores to a context into one that the verifier refuses. */
#define BARRIER() asm volatile("" ::: "memory")

#define HELPER(result, name, ...) static result (*const name)(__VA_ARGS__)

HELPER(void *, bpf_map_lookup_elem, void *map, const void *key) = (void *)BPF_FUNC_map_lookup_elem;
HELPER(long, bpf_map_update_elem, void *map, const void *key, const void *value, __u64 flags) =
	(void *)BPF_FUNC_map_update_elem;
HELPER(long, bpf_bind, struct bpf_sock_addr *ctx, void *addr, int addr_len) = (void *)BPF_FUNC_bind;
HELPER(__u64, bpf_get_current_cgroup_id, void) = (void *)BPF_FUNC_get_current_cgroup_id;
HELPER(__u64, bpf_get_current_ancestor_cgroup_id, int level) = (void *)BPF_FUNC_get_current_ancestor_cgroup_id;
HELPER(__u64, bpf_skb_cgroup_id, struct __sk_buff *skb) = (void *)BPF_FUNC_skb_cgroup_id;
HELPER(__u64, bpf_skb_ancestor_cgroup_id, struct __sk_buff *skb, int level) =
	(void *)BPF_FUNC_skb_ancestor_cgroup_id;
HELPER(__u64, bpf_sk_cgroup_id, void *sk) = (void *)BPF_FUNC_sk_cgroup_id;
HELPER(__u64, bpf_sk_ancestor_cgroup_id, void *sk, int level) = (void *)BPF_FUNC_sk_ancestor_cgroup_id;
HELPER(__u64, bpf_get_socket_cookie, void *ctx) = (void *)BPF_FUNC_get_socket_cookie;
HELPER(void *, bpf_sk_storage_get, void *map, void *sk, void *value, __u64 flags) =
	(void *)BPF_FUNC_sk_storage_get;
HELPER(struct bpf_sock *, bpf_sk_lookup_tcp, void *ctx, struct bpf_sock_tuple *tuple, __u32 size,
       __u64 netns, __u64 flags) = (void *)BPF_FUNC_sk_lookup_tcp;
HELPER(struct bpf_sock *, bpf_sk_lookup_udp, void *ctx, struct bpf_sock_tuple *tuple, __u32 size,
       __u64 netns, __u64 flags) = (void *)BPF_FUNC_sk_lookup_udp;
HELPER(long, bpf_sk_release, void *sk) = (void *)BPF_FUNC_sk_release;

#endif
