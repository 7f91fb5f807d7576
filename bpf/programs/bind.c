/* A workload's listeners move to its app address, and the workload does not notice.
 *
 * bind() to a port: the address becomes the app address (::ffff:app for IPv6 sockets). An IPv6-only socket
 * can not have such an address; it keeps its own and gets any free port instead, so that it stands in nobody's
 * way: nginx's `listen 80; listen [::]:80`, asyncio's dual servers. bind() to port 0 is left alone: the kernel
 * picks a free port, and the same call serves clients that choose no source address and go to the internet.
 * Strangers are kept out by the guard, not by the address.
 */
#include "../lib/member.h"

#define BIND_ALLOWED 1
/* No CAP_NET_BIND_SERVICE asked for ports below 1024: the address is the workload's own. */
#define BIND_ALLOWED_ANY_PORT 3

#define IPPROTO_TCP 6
#define SOL_IPV6 41
#define IPV6_V6ONLY 26
#define PAGE_SIZE 4096

INLINE int is_open(struct member *workload, __u16 port)
{
	struct address_port key = {.address = workload->address, .port = port};

	return bpf_map_lookup_elem(&open_ports, &key) != NULL;
}

INLINE int is_v6only(struct socket_state *state)
{
	__u32 zero = 0;
	struct settings *now;

	if (state->flags & SOCKET_V6ONLY)
		return 1;
	if (state->flags & SOCKET_V4_TOO)
		return 0;
	now = bpf_map_lookup_elem(&settings, &zero);
	return now && now->v6only;
}

/* The socket's state with what is common to both families noted, or NULL if the bind is not ours. */
INLINE struct socket_state *begin_bind(struct bpf_sock_addr *ctx)
{
	struct member *workload;
	struct socket_state *state;
	__u16 port = ctx->user_port;

	if (ctx->protocol != IPPROTO_TCP || !port || !ctx->sk)
		return NULL;
	workload = current_workload();
	if (!workload || is_open(workload, port))
		return NULL;
	state = bpf_sk_storage_get(&sockets, ctx->sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (!state)
		return NULL;
	state->address = workload->address;
	state->asked_port = port;
	state->flags |= SOCKET_BOUND;
	return state;
}

SEC("cgroup/bind4") int retia_bind4(struct bpf_sock_addr *ctx)
{
	struct socket_state *state = begin_bind(ctx);

	if (!state)
		return BIND_ALLOWED;
	state->asked[3] = ctx->user_ip4;
	ctx->user_ip4 = state->address;
	return BIND_ALLOWED_ANY_PORT;
}

SEC("cgroup/bind6") int retia_bind6(struct bpf_sock_addr *ctx)
{
	struct socket_state *state = begin_bind(ctx);

	if (!state)
		return BIND_ALLOWED;
	state->asked[0] = ctx->user_ip6[0];
	state->asked[1] = ctx->user_ip6[1];
	state->asked[2] = ctx->user_ip6[2];
	state->asked[3] = ctx->user_ip6[3];
	if (!is_mapped(ctx) && is_v6only(state)) {
		ctx->user_port = 0;
		return BIND_ALLOWED_ANY_PORT;
	}
	ctx->user_ip6[0] = 0;
	BARRIER();
	ctx->user_ip6[1] = 0;
	BARRIER();
	ctx->user_ip6[2] = host_to_net32(0xffff);
	BARRIER();
	ctx->user_ip6[3] = state->address;
	return BIND_ALLOWED_ANY_PORT;
}

/* Notes where an IPv6-only listener went, for the workload's own calls to [::1]. */
SEC("cgroup/post_bind6") int retia_post_bind6(struct bpf_sock *sk)
{
	struct socket_state *state;
	struct address_port key = {};
	__u32 port;

	state = bpf_sk_storage_get(&sockets, sk, NULL, 0);
	if (!state || !(state->flags & SOCKET_BOUND))
		return 1;
	port = host_to_net16(sk->src_port);
	if (port == state->asked_port)
		return 1;
	key.address = state->address;
	key.port = state->asked_port;
	bpf_map_update_elem(&v6_ports, &key, &port, BPF_ANY);
	return 1;
}

SEC("cgroup/getsockname4") int retia_getsockname4(struct bpf_sock_addr *ctx)
{
	struct socket_state *state;

	if (!ctx->sk)
		return 1;
	state = bpf_sk_storage_get(&sockets, ctx->sk, NULL, 0);
	if (!state || !(state->flags & SOCKET_BOUND) || ctx->user_ip4 != state->address ||
	    ctx->user_port != state->asked_port)
		return 1;
	ctx->user_ip4 = state->asked[3];
	return 1;
}

SEC("cgroup/getsockname6") int retia_getsockname6(struct bpf_sock_addr *ctx)
{
	struct socket_state *state;
	int moved;

	if (!ctx->sk)
		return 1;
	state = bpf_sk_storage_get(&sockets, ctx->sk, NULL, 0);
	if (!state || !(state->flags & SOCKET_BOUND) || !ctx->user_port)
		return 1;
	if (is_mapped(ctx))
		moved = ctx->user_ip6[3] == state->address && ctx->user_port == state->asked_port;
	else
		moved = ctx->user_port != state->asked_port;
	if (!moved)
		return 1;
	ctx->user_ip6[0] = state->asked[0];
	BARRIER();
	ctx->user_ip6[1] = state->asked[1];
	BARRIER();
	ctx->user_ip6[2] = state->asked[2];
	BARRIER();
	ctx->user_ip6[3] = state->asked[3];
	BARRIER();
	ctx->user_port = state->asked_port;
	return 1;
}

/* Watches IPV6_V6ONLY go by: a bind program can not ask a socket for it. */
SEC("cgroup/setsockopt") int retia_setsockopt(struct bpf_sockopt *ctx)
{
	struct socket_state *state;
	int *value = ctx->optval;

	if (ctx->level == SOL_IPV6 && ctx->optname == IPV6_V6ONLY && ctx->sk &&
	    (void *)(value + 1) <= ctx->optval_end) {
		state = bpf_sk_storage_get(&sockets, ctx->sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
		if (state) {
			state->flags &= ~(SOCKET_V6ONLY | SOCKET_V4_TOO);
			state->flags |= *value ? SOCKET_V6ONLY : SOCKET_V4_TOO;
		}
	}
	/* 0: the kernel takes the caller's own buffer, whatever its length. */
	ctx->optlen = 0;
	return 1;
}
