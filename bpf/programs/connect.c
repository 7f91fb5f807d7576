/* A workload's connections go to its proxy, its own localhost, its DNS, or where they were going.
 *
 * Order: the mesh's destinations; DNS (port 53, UDP and TCP); the host's own addresses where the workload itself
 * listens; everything else is untouched. The workload sees the peer that it asked for.
 */
#include "../lib/member.h"

#define IPPROTO_TCP 6
#define IPPROTO_UDP 17
#define DNS_PORT host_to_net16(53)

#define ALLOW 1
#define REFUSE 0

struct sockaddr_v4 {
	__u16 family;
	__u16 port;
	__u32 address;
	__u64 zero;
};

struct sockaddr_v6 {
	__u16 family;
	__u16 port;
	__u32 flow;
	__u32 address[4];
	__u32 scope;
};

enum verdict {
	PASS,       /* untouched */
	REWRITE,    /* to the target, the workload's own business */
	TO_PROXY,   /* to the target, which may ask where it was going */
	FORBID,
};

struct target {
	__u32 address;
	__u16 port;
};

INLINE __u16 listener_port(struct member *workload, __u8 listener)
{
	if (listener == LISTENER_HTTP)
		return workload->http_port;
	if (listener == LISTENER_AUTO)
		return workload->auto_port;
	return workload->tcp_port;
}

INLINE int is_own_listener_port(struct member *workload, __u16 port)
{
	return port == workload->http_port || port == workload->auto_port || port == workload->tcp_port;
}

/* An address by which the workload may mean itself. 127.64.0.0 to 127.95.255.255 are the meshes' own ranges: an
 * address there is some instance, not localhost. */
INLINE int is_this_host(__u32 address)
{
	__u32 second = host_to_net32(address) >> 16 & 0xff;

	if (is_loopback(address))
		return second < 64 || second > 95;
	return !address || bpf_map_lookup_elem(&host_addresses, &address) != NULL;
}

INLINE enum verdict decide_destination(void *ctx, struct member *workload, struct destination *destination,
				       struct target *target)
{
	__u16 port = listener_port(workload, destination->listener);

	if (workload->flags & MEMBER_FAIL_OPEN && !is_listening(ctx, workload->address, port)) {
		if (!destination->fallback_address)
			return PASS;
		target->address = destination->fallback_address;
		target->port = destination->fallback_port;
		return REWRITE;
	}
	target->address = workload->address;
	target->port = port;
	return TO_PROXY;
}

INLINE enum verdict decide_tcp(void *ctx, struct member *workload, struct target *target)
{
	struct address_port key = {.address = target->address, .port = target->port};
	struct destination *destination = bpf_map_lookup_elem(&destinations, &key);

	if (destination)
		return decide_destination(ctx, workload, destination, target);
	if (key.port == DNS_PORT && workload->dns_port) {
		target->address = workload->address;
		target->port = workload->dns_port;
		return REWRITE;
	}
	if (key.address == workload->address)
		return is_own_listener_port(workload, key.port) ? FORBID : PASS;
	if (is_this_host(key.address) && is_listening(ctx, workload->address, key.port)) {
		target->address = workload->address;
		return REWRITE;
	}
	return PASS;
}

INLINE enum verdict decide_udp(struct member *workload, struct target *target)
{
	if (target->port != DNS_PORT || !workload->dns_port)
		return PASS;
	target->address = workload->address;
	target->port = workload->dns_port;
	return REWRITE;
}

INLINE void forget(struct bpf_sock_addr *ctx)
{
	struct socket_state *state = bpf_sk_storage_get(&sockets, ctx->sk, NULL, 0);

	if (state)
		state->flags &= ~(SOCKET_REDIRECTED | SOCKET_RENAMED);
}

/* Notes the peer that was asked for; 0 if there is no memory for it. */
INLINE struct socket_state *remember(struct bpf_sock_addr *ctx, enum verdict verdict)
{
	struct socket_state *state;

	state = bpf_sk_storage_get(&sockets, ctx->sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (!state)
		return NULL;
	state->peer_port = ctx->user_port;
	state->flags |= SOCKET_RENAMED;
	if (verdict == TO_PROXY)
		state->flags |= SOCKET_REDIRECTED;
	else
		state->flags &= ~SOCKET_REDIRECTED;
	return state;
}

INLINE void bind_source4(struct bpf_sock_addr *ctx, __u32 address)
{
	struct sockaddr_v4 source = {.family = AF_INET, .address = address};

	bpf_bind(ctx, &source, sizeof(source)); /* fails where the program has bound already: harmless */
}

INLINE void bind_source6(struct bpf_sock_addr *ctx, __u32 address)
{
	struct sockaddr_v6 source = {.family = AF_INET6};

	source.address[2] = host_to_net32(0xffff);
	source.address[3] = address;
	bpf_bind(ctx, &source, sizeof(source));
}

INLINE int connect4(struct bpf_sock_addr *ctx)
{
	struct member *workload;
	struct socket_state *state;
	struct target target = {.address = ctx->user_ip4, .port = ctx->user_port};
	enum verdict verdict;

	if (!ctx->sk)
		return ALLOW;
	if (ctx->protocol == IPPROTO_UDP && target.port != DNS_PORT) {
		forget(ctx);
		return ALLOW;
	}
	workload = current_workload();
	if (!workload)
		return ALLOW;
	if (ctx->protocol == IPPROTO_TCP)
		verdict = decide_tcp(ctx, workload, &target);
	else if (ctx->protocol == IPPROTO_UDP)
		verdict = decide_udp(workload, &target);
	else
		return ALLOW;
	if (verdict == FORBID)
		return REFUSE;
	if (verdict == PASS) {
		forget(ctx);
		return ALLOW;
	}
	state = remember(ctx, verdict);
	if (!state)
		return REFUSE;
	state->peer[3] = ctx->user_ip4;
	if (verdict == TO_PROXY)
		bind_source4(ctx, workload->address);
	ctx->user_ip4 = target.address;
	BARRIER();
	ctx->user_port = target.port;
	return ALLOW;
}

INLINE int is_v6_loopback(struct bpf_sock_addr *ctx)
{
	return !ctx->user_ip6[0] && !ctx->user_ip6[1] && !ctx->user_ip6[2] &&
	       (ctx->user_ip6[3] == host_to_net32(1) || !ctx->user_ip6[3]);
}

/* The real port of the workload's IPv6-only listener, or 0. Whether it still listens is asked of the kernel. */
INLINE __u16 v6_listener(struct bpf_sock_addr *ctx, struct member *workload)
{
	struct address_port key = {.address = workload->address, .port = ctx->user_port};
	struct bpf_sock_tuple tuple = {};
	struct bpf_sock *sk;
	__u32 *port = bpf_map_lookup_elem(&v6_ports, &key);
	__u16 found;

	if (!port)
		return 0;
	found = *port;
	tuple.ipv6.daddr[3] = host_to_net32(1);
	tuple.ipv6.dport = found;
	sk = bpf_sk_lookup_tcp(ctx, &tuple, sizeof(tuple.ipv6), BPF_F_CURRENT_NETNS, 0);
	if (!sk)
		return 0;
	if (sk->state != TCP_LISTEN)
		found = 0;
	bpf_sk_release(sk);
	return found;
}

INLINE int connect6(struct bpf_sock_addr *ctx)
{
	struct member *workload;
	struct socket_state *state;
	struct target target = {.address = ctx->user_ip6[3], .port = ctx->user_port};
	int mapped = is_mapped(ctx), local = is_v6_loopback(ctx);
	enum verdict verdict = PASS;
	__u16 port = 0;

	if (!ctx->sk)
		return ALLOW;
	if ((ctx->protocol == IPPROTO_UDP && target.port != DNS_PORT) ||
	    (!mapped && !local && target.port != DNS_PORT)) {
		forget(ctx);
		return ALLOW;
	}
	workload = current_workload();
	if (!workload)
		return ALLOW;
	if (ctx->protocol == IPPROTO_UDP) {
		verdict = decide_udp(workload, &target);
	} else if (ctx->protocol == IPPROTO_TCP) {
		if (!mapped) {
			port = local ? v6_listener(ctx, workload) : 0;
			target.address = host_to_net32(0x7f000001);
		}
		verdict = port ? REWRITE : decide_tcp(ctx, workload, &target);
	} else {
		return ALLOW;
	}
	if (verdict == FORBID)
		return REFUSE;
	if (verdict == PASS) {
		forget(ctx);
		return ALLOW;
	}
	state = remember(ctx, verdict);
	if (!state)
		return REFUSE;
	state->peer[0] = ctx->user_ip6[0];
	state->peer[1] = ctx->user_ip6[1];
	state->peer[2] = ctx->user_ip6[2];
	state->peer[3] = ctx->user_ip6[3];
	if (port) {
		ctx->user_port = port;
		return ALLOW;
	}
	if (verdict == TO_PROXY)
		bind_source6(ctx, workload->address);
	ctx->user_ip6[0] = 0;
	BARRIER();
	ctx->user_ip6[1] = 0;
	BARRIER();
	ctx->user_ip6[2] = host_to_net32(0xffff);
	BARRIER();
	ctx->user_ip6[3] = target.address;
	BARRIER();
	ctx->user_port = target.port;
	return ALLOW;
}

/* sendto() without connect(), IPv4-mapped addresses included. */
INLINE int sendmsg4(struct bpf_sock_addr *ctx)
{
	struct member *workload;
	struct socket_state *state;
	struct target target = {.address = ctx->user_ip4, .port = ctx->user_port};

	if (ctx->user_port != DNS_PORT || !ctx->sk)
		return ALLOW;
	workload = current_workload();
	if (!workload || decide_udp(workload, &target) == PASS)
		return ALLOW;
	state = remember(ctx, REWRITE);
	if (!state)
		return REFUSE;
	state->peer[0] = 0;
	state->peer[1] = 0;
	state->peer[2] = host_to_net32(0xffff);
	state->peer[3] = ctx->user_ip4;
	ctx->user_ip4 = target.address;
	BARRIER();
	ctx->user_port = target.port;
	return ALLOW;
}

INLINE struct socket_state *renamed(struct bpf_sock_addr *ctx)
{
	struct socket_state *state;

	if (!ctx->sk)
		return NULL;
	state = bpf_sk_storage_get(&sockets, ctx->sk, NULL, 0);
	return state && state->flags & SOCKET_RENAMED ? state : NULL;
}

INLINE void show_peer4(struct bpf_sock_addr *ctx, struct socket_state *state)
{
	ctx->user_ip4 = state->peer[3];
	BARRIER();
	ctx->user_port = state->peer_port;
}

INLINE void show_peer6(struct bpf_sock_addr *ctx, struct socket_state *state)
{
	ctx->user_ip6[0] = state->peer[0];
	BARRIER();
	ctx->user_ip6[1] = state->peer[1];
	BARRIER();
	ctx->user_ip6[2] = state->peer[2];
	BARRIER();
	ctx->user_ip6[3] = state->peer[3];
	BARRIER();
	ctx->user_port = state->peer_port;
}

/* Whether a datagram came from the workload's DNS. */
INLINE int is_from_dns(struct bpf_sock_addr *ctx, __u32 address)
{
	struct member *workload = current_workload();

	return workload && workload->dns_port && address == workload->address &&
	       ctx->user_port == workload->dns_port;
}

SEC("cgroup/connect4") int retia_connect4(struct bpf_sock_addr *ctx)
{
	return connect4(ctx);
}

SEC("cgroup/connect6") int retia_connect6(struct bpf_sock_addr *ctx)
{
	return connect6(ctx);
}

SEC("cgroup/sendmsg4") int retia_sendmsg4(struct bpf_sock_addr *ctx)
{
	return sendmsg4(ctx);
}

SEC("cgroup/recvmsg4") int retia_recvmsg4(struct bpf_sock_addr *ctx)
{
	struct socket_state *state = renamed(ctx);

	if (state && is_from_dns(ctx, ctx->user_ip4))
		show_peer4(ctx, state);
	return 1;
}

SEC("cgroup/recvmsg6") int retia_recvmsg6(struct bpf_sock_addr *ctx)
{
	struct socket_state *state = renamed(ctx);

	if (state && is_mapped(ctx) && is_from_dns(ctx, ctx->user_ip6[3]))
		show_peer6(ctx, state);
	return 1;
}

SEC("cgroup/getpeername4") int retia_getpeername4(struct bpf_sock_addr *ctx)
{
	struct socket_state *state = renamed(ctx);

	if (state)
		show_peer4(ctx, state);
	return 1;
}

SEC("cgroup/getpeername6") int retia_getpeername6(struct bpf_sock_addr *ctx)
{
	struct socket_state *state = renamed(ctx);

	if (state)
		show_peer6(ctx, state);
	return 1;
}
