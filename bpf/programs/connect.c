/* A workload's connections go to its proxy, its own localhost, its DNS, or where they were going.
 *
 * Order: the mesh's destinations; DNS (port 53, UDP and TCP); the host's own addresses where the workload itself
 * listens; everything else is untouched. The workload sees the peer that it asked for.
 */
#include "../lib/member.h"
#include "../lib/originals.h"
#include "../lib/peers.h"

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
	if (ctx->protocol == IPPROTO_TCP)
		release_peer(bpf_get_socket_cookie(ctx));
}

struct words {
	__u32 word[4];
};

/* Notes the peer that was asked for in the socket's storage; 0 if there is no memory for it. */
INLINE int remember(struct bpf_sock_addr *ctx, enum verdict verdict, const struct words *peer)
{
	struct socket_state *state;

	state = bpf_sk_storage_get(&sockets, ctx->sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (!state)
		return 0;
	state->peer[0] = peer->word[0];
	state->peer[1] = peer->word[1];
	state->peer[2] = peer->word[2];
	state->peer[3] = peer->word[3];
	state->peer_port = ctx->user_port;
	state->flags |= SOCKET_RENAMED;
	if (verdict == TO_PROXY)
		state->flags |= SOCKET_REDIRECTED;
	else
		state->flags &= ~SOCKET_REDIRECTED;
	return 1;
}

/* The same for a TCP socket: the way to the proxy, which is gone often, has a place that costs less. */
INLINE int remember_tcp(struct bpf_sock_addr *ctx, enum verdict verdict, const struct words *peer)
{
	__u64 cookie = bpf_get_socket_cookie(ctx);
	struct peer *place;

	if (verdict != TO_PROXY) {
		release_peer(cookie);
		return remember(ctx, verdict, peer);
	}
	place = take_peer(cookie);
	if (!place)
		return remember(ctx, verdict, peer);
	place->address[0] = peer->word[0];
	place->address[1] = peer->word[1];
	place->address[2] = peer->word[2];
	place->address[3] = peer->word[3];
	place->port = ctx->user_port;
	place->tuple.server = 0;
	return 1;
}

INLINE int note_peer(struct bpf_sock_addr *ctx, enum verdict verdict, const struct words *peer)
{
	if (ctx->protocol == IPPROTO_TCP)
		return remember_tcp(ctx, verdict, peer);
	return remember(ctx, verdict, peer);
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
	struct words peer = {};
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
	peer.word[3] = ctx->user_ip4;
	if (!note_peer(ctx, verdict, &peer))
		return REFUSE;
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
	struct words peer;
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
	peer.word[0] = ctx->user_ip6[0];
	peer.word[1] = ctx->user_ip6[1];
	peer.word[2] = ctx->user_ip6[2];
	peer.word[3] = ctx->user_ip6[3];
	if (!note_peer(ctx, verdict, &peer))
		return REFUSE;
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
	struct words peer = {};
	struct target target = {.address = ctx->user_ip4, .port = ctx->user_port};

	if (ctx->user_port != DNS_PORT || !ctx->sk)
		return ALLOW;
	workload = current_workload();
	if (!workload || decide_udp(workload, &target) == PASS)
		return ALLOW;
	peer.word[2] = host_to_net32(0xffff);
	peer.word[3] = ctx->user_ip4;
	if (!remember(ctx, REWRITE, &peer))
		return REFUSE;
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

INLINE void show4(struct bpf_sock_addr *ctx, __u32 address, __u16 port)
{
	ctx->user_ip4 = address;
	BARRIER();
	ctx->user_port = port;
}

INLINE void show6(struct bpf_sock_addr *ctx, const __u32 *address, __u16 port)
{
	ctx->user_ip6[0] = address[0];
	BARRIER();
	ctx->user_ip6[1] = address[1];
	BARRIER();
	ctx->user_ip6[2] = address[2];
	BARRIER();
	ctx->user_ip6[3] = address[3];
	BARRIER();
	ctx->user_port = port;
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
		show4(ctx, state->peer[3], state->peer_port);
	return 1;
}

SEC("cgroup/recvmsg6") int retia_recvmsg6(struct bpf_sock_addr *ctx)
{
	struct socket_state *state = renamed(ctx);

	if (state && is_mapped(ctx) && is_from_dns(ctx, ctx->user_ip6[3]))
		show6(ctx, state->peer, state->peer_port);
	return 1;
}

SEC("cgroup/getpeername4") int retia_getpeername4(struct bpf_sock_addr *ctx)
{
	struct peer *peer = peer_of(bpf_get_socket_cookie(ctx));
	struct socket_state *state;

	if (peer) {
		show4(ctx, peer->address[3], peer->port);
		return 1;
	}
	state = renamed(ctx);
	if (state)
		show4(ctx, state->peer[3], state->peer_port);
	return 1;
}

SEC("cgroup/getpeername6") int retia_getpeername6(struct bpf_sock_addr *ctx)
{
	struct peer *peer = peer_of(bpf_get_socket_cookie(ctx));
	struct socket_state *state;

	if (peer) {
		show6(ctx, peer->address, peer->port);
		return 1;
	}
	state = renamed(ctx);
	if (state)
		show6(ctx, state->peer, state->peer_port);
	return 1;
}

INLINE void publish(struct bpf_sock_ops *ops)
{
	struct peer *peer = peer_of(bpf_get_socket_cookie(ops));
	struct address_port original = {};
	struct socket_state *state;
	struct tuple tuple = {};

	if (peer) {
		original.address = peer->address[3];
		original.port = peer->port;
	} else {
		if (!ops->sk)
			return;
		state = bpf_sk_storage_get(&sockets, ops->sk, NULL, 0);
		if (!state || !(state->flags & SOCKET_REDIRECTED))
			return;
		original.address = state->peer[3];
		original.port = state->peer_port;
	}
	tuple.client = ops->local_ip4;
	tuple.server = ops->remote_ip4;
	tuple.client_port = host_to_net16(ops->local_port);
	tuple.server_port = ops->remote_port >> 16;
	if (peer)
		peer->tuple = tuple;
	put_original(&tuple, &original);
}

/* Called when the source port is known and the SYN is not yet sent. */
SEC("sockops") int retia_sockops(struct bpf_sock_ops *ops)
{
	if (ops->op == BPF_SOCK_OPS_TCP_CONNECT_CB)
		publish(ops);
	return 1;
}

SEC("cgroup/sock_release") int retia_sock_release(struct bpf_sock *sk)
{
	__u64 cookie;
	struct peer *peer;
	struct tuple tuple;

	if (sk->protocol != IPPROTO_TCP)
		return 1;
	cookie = bpf_get_socket_cookie(sk);
	peer = peer_of(cookie);
	if (!peer)
		return 1;
	tuple = peer->tuple;
	if (sk->state == TCP_CLOSE && tuple.server)
		drop_original(&tuple);
	release_peer(cookie);
	return 1;
}
