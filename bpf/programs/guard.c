/* Nobody uses another's listeners, and the proxy learns where a connection was going.
 *
 * The guard sees every packet that a socket below the mesh's cgroup receives, and looks at SYNs and at DNS
 * queries only. It finds the socket that sent the packet (it is on this host, or it is a stranger) and asks
 * which cgroup made it. No packet mark, no table of permitted tuples: nothing to forge, nothing to go stale.
 *
 *   receiver            who may open a connection
 *   workload            itself, its own proxy, the agent; open ports: everybody
 *   proxy, app address  the workload, and only by a redirected connect()
 *   agent, app address  the workload (DNS)
 *   other addresses     everybody
 */
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>

#include "../lib/member.h"
#include "../lib/originals.h"

#define IPPROTO_TCP 6
#define IPPROTO_UDP 17
#define SOL_IP 0
#define SO_ORIGINAL_DST 80

#define PASS 1
#define DROP 0

struct sockaddr_v4 {
	__u16 family;
	__u16 port;
	__u32 address;
	__u64 zero;
};

/* Who sent a packet, copied so that the socket can be released. */
struct sender {
	__u64 cgroup;
	__u32 role;
	__u32 address;
};

/* One packet that opens something. */
struct opening {
	__u32 server; /* 0 for IPv6 */
	__u32 client;
	__u16 server_port;
	__u16 client_port;
	int is_udp;
};

INLINE void describe(struct bpf_sock *sk, struct sender *sender)
{
	struct member *member = owner_of(sk, &sender->cgroup);

	if (!member)
		return;
	sender->role = member->role;
	sender->address = member->address;
}

INLINE int is_granted(struct sender *sender, __u32 address)
{
	struct grant key = {.proxy = sender->cgroup, .address = address};

	return bpf_map_lookup_elem(&grants, &key) != NULL;
}

INLINE int may_enter_workload(struct member *workload, struct sender *sender, __u16 port)
{
	struct address_port key = {.address = workload->address, .port = port};

	if (sender->role == ROLE_AGENT)
		return PASS;
	if (sender->role == ROLE_WORKLOAD && sender->address == workload->address)
		return PASS;
	if (sender->role == ROLE_PROXY && is_granted(sender, workload->address))
		return PASS;
	return bpf_map_lookup_elem(&open_ports, &key) ? PASS : DROP;
}

INLINE int may_enter_proxy(struct opening *opening, struct sender *sender)
{
	struct tuple key = {
		.client = opening->client,
		.server = opening->server,
		.client_port = opening->client_port,
		.server_port = opening->server_port,
	};

	if (sender->role != ROLE_WORKLOAD || sender->address != opening->server)
		return DROP;
	return has_original(&key) ? PASS : DROP;
}

INLINE int decide(struct member *receiver, struct opening *opening, struct sender *sender)
{
	if (receiver->role == ROLE_WORKLOAD)
		return may_enter_workload(receiver, sender, opening->server_port);
	if (receiver->role == ROLE_PROXY)
		return may_enter_proxy(opening, sender);
	return sender->role == ROLE_WORKLOAD && sender->address == opening->server ? PASS : DROP;
}

/* Whether anything at all is to be decided: a workload's socket, or an app address. */
INLINE int is_guarded(struct member *receiver, struct opening *opening)
{
	if (receiver->role == ROLE_WORKLOAD)
		return !opening->is_udp;
	return opening->server && bpf_map_lookup_elem(&addresses, &opening->server) != NULL;
}

INLINE int guard4(struct __sk_buff *skb, void *data, void *end)
{
	struct iphdr *ip = data;
	struct bpf_sock_tuple tuple = {};
	struct opening opening = {};
	struct sender sender = {};
	struct member *receiver;
	struct bpf_sock *sk;

	if ((void *)(ip + 1) > end)
		return PASS;
	if (ip->protocol == IPPROTO_TCP) {
		struct tcphdr *tcp = data + ip->ihl * 4;

		if ((void *)(tcp + 1) > end || !tcp->syn || tcp->ack)
			return PASS;
		opening.server_port = tcp->dest;
		opening.client_port = tcp->source;
	} else if (ip->protocol == IPPROTO_UDP) {
		struct udphdr *udp = data + ip->ihl * 4;

		if ((void *)(udp + 1) > end)
			return PASS;
		opening.server_port = udp->dest;
		opening.client_port = udp->source;
		opening.is_udp = 1;
	} else {
		return PASS;
	}
	opening.server = ip->daddr;
	opening.client = ip->saddr;
	receiver = receiver_of(skb);
	if (!receiver || !is_guarded(receiver, &opening))
		return PASS;
	tuple.ipv4.saddr = opening.server;
	tuple.ipv4.daddr = opening.client;
	tuple.ipv4.sport = opening.server_port;
	tuple.ipv4.dport = opening.client_port;
	if (opening.is_udp)
		sk = bpf_sk_lookup_udp(skb, &tuple, sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0);
	else
		sk = bpf_sk_lookup_tcp(skb, &tuple, sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0);
	if (sk) {
		describe(sk, &sender);
		bpf_sk_release(sk);
	}
	return decide(receiver, &opening, &sender);
}

INLINE int guard6(struct __sk_buff *skb, void *data, void *end)
{
	struct ipv6hdr *ip = data;
	struct tcphdr *tcp = (void *)(ip + 1);
	struct bpf_sock_tuple tuple = {};
	struct opening opening = {};
	struct sender sender = {};
	struct member *receiver;
	struct bpf_sock *sk;

	if ((void *)(tcp + 1) > end || ip->nexthdr != IPPROTO_TCP || !tcp->syn || tcp->ack)
		return PASS;
	receiver = receiver_of(skb);
	if (!receiver || receiver->role != ROLE_WORKLOAD)
		return PASS;
	opening.server_port = tcp->dest;
	__builtin_memcpy(tuple.ipv6.saddr, &ip->daddr, 16);
	__builtin_memcpy(tuple.ipv6.daddr, &ip->saddr, 16);
	tuple.ipv6.sport = tcp->dest;
	tuple.ipv6.dport = tcp->source;
	sk = bpf_sk_lookup_tcp(skb, &tuple, sizeof(tuple.ipv6), BPF_F_CURRENT_NETNS, 0);
	if (sk) {
		describe(sk, &sender);
		bpf_sk_release(sk);
	}
	return decide(receiver, &opening, &sender);
}

SEC("cgroup_skb/ingress") int retia_guard(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data;
	void *end = (void *)(long)skb->data_end;

	if (skb->protocol == host_to_net16(ETH_P_IP))
		return guard4(skb, data, end);
	if (skb->protocol == host_to_net16(ETH_P_IPV6))
		return guard6(skb, data, end);
	return PASS;
}

/* SO_ORIGINAL_DST for a proxy's accepted sockets, without conntrack. */
SEC("cgroup/getsockopt") int retia_getsockopt(struct bpf_sockopt *ctx)
{
	struct sockaddr_v4 *answer = ctx->optval;
	struct address_port original;
	struct bpf_sock *sk = ctx->sk;
	struct tuple key = {};

	if (ctx->level != SOL_IP || ctx->optname != SO_ORIGINAL_DST || !sk)
		return 1;
	if ((void *)(answer + 1) > ctx->optval_end)
		return 1;
	key.client = sk->dst_ip4;
	key.server = sk->src_ip4;
	key.client_port = sk->dst_port;
	key.server_port = host_to_net16(sk->src_port);
	if (!get_original(&key, &original))
		return 1;
	answer->family = AF_INET;
	answer->port = original.port;
	answer->address = original.address;
	answer->zero = 0;
	ctx->optlen = sizeof(*answer);
	BARRIER();
	ctx->retval = 0;
	return 1;
}
