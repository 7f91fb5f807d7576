/* What user space and the programs share. `retia.node.layout` describes the same structures in Python, and a
 * test compares sizes and offsets. Addresses and ports are in network order everywhere.
 *
 * Maps of one name are one map, whichever object defines them.
 */
#ifndef RETIA_MAPS_H
#define RETIA_MAPS_H

#include "helpers.h"

enum role {
	ROLE_WORKLOAD = 1, /* captured: its binds and connects are rewritten */
	ROLE_PROXY = 2,    /* an Envoy: asks for original destinations, reaches what `grants` says */
	ROLE_AGENT = 3,    /* answers DNS, checks health */
};

enum member_flag {
	MEMBER_FAIL_OPEN = 1, /* with no listener at the proxy, connections pass it by */
};

enum listener {
	LISTENER_HTTP = 1,
	LISTENER_AUTO = 2,
	LISTENER_TCP = 3,
};

/* Who lives in a cgroup. */
struct member {
	__u32 role;
	__u32 flags;
	__u32 address; /* workloads: the app address */
	__u16 http_port;
	__u16 auto_port;
	__u16 tcp_port;
	__u16 dns_port; /* 0: DNS is not captured */
};

struct address_port {
	__u32 address;
	__u16 port;
	__u16 zero;
};

/* Which outbound listener takes connections to an address. */
struct destination {
	__u32 fallback_address; /* where a fail-open workload goes with its proxy away; 0: the address itself */
	__u16 fallback_port;
	__u8 listener;
	__u8 zero;
};

struct grant {
	__u64 proxy; /* cgroup id */
	__u32 address;
	__u32 zero;
};

struct tuple {
	__u32 client;
	__u32 server;
	__u16 client_port;
	__u16 server_port;
};

/* One original destination; `key` is a tuple and a state in one word. */
struct slot {
	__u64 key;
	struct address_port original;
};

/* Where one socket that goes to the proxy was going; IPv4 addresses stand in the last word. */
struct peer {
	__u64 cookie; /* 0: free */
	__u32 address[4];
	struct tuple tuple; /* the connection to the proxy, once it is begun */
	__u16 port;
	__u16 zero;
};

struct settings {
	__u32 v6only; /* net.ipv6.bindv6only: what a new IPv6 socket starts with */
	__u32 zero;
	__u8 digest[32]; /* of the objects that are loaded; programs do not read it */
};

enum socket_flag {
	SOCKET_BOUND = 1,      /* asked_* holds what bind() was given */
	SOCKET_REDIRECTED = 2, /* peer_* holds what connect() was given, and the proxy may ask for it */
	SOCKET_RENAMED = 4,    /* peer_* holds what connect() or sendto() was given */
	SOCKET_V6ONLY = 8,     /* IPV6_V6ONLY was set to 1 */
	SOCKET_V4_TOO = 16,    /* IPV6_V6ONLY was set to 0 */
};

/* What is known of one socket; lives and dies with it. IPv4 addresses stand in the last word. */
struct socket_state {
	__u32 asked[4];
	__u32 peer[4];
	__u32 address; /* the app address that took the place of `asked` */
	__u16 asked_port;
	__u16 peer_port;
	__u32 flags;
};

struct {
	MAP_NUMBER(type, BPF_MAP_TYPE_HASH);
	MAP_NUMBER(max_entries, 16384);
	MAP_NUMBER(map_flags, BPF_F_NO_PREALLOC);
	MAP_TYPE(key, __u64);
	MAP_TYPE(value, struct member);
} members SEC(".maps");

/* App addresses of captured workloads. */
struct {
	MAP_NUMBER(type, BPF_MAP_TYPE_HASH);
	MAP_NUMBER(max_entries, 16384);
	MAP_NUMBER(map_flags, BPF_F_NO_PREALLOC);
	MAP_TYPE(key, __u32);
	MAP_TYPE(value, __u32);
} addresses SEC(".maps");

/* App addresses that a proxy may reach. */
struct {
	MAP_NUMBER(type, BPF_MAP_TYPE_HASH);
	MAP_NUMBER(max_entries, 16384);
	MAP_NUMBER(map_flags, BPF_F_NO_PREALLOC);
	MAP_TYPE(key, struct grant);
	MAP_TYPE(value, __u32);
} grants SEC(".maps");

/* Ports that a workload (by its app address) keeps as they are: a debugger's, for instance. */
struct {
	MAP_NUMBER(type, BPF_MAP_TYPE_HASH);
	MAP_NUMBER(max_entries, 16384);
	MAP_NUMBER(map_flags, BPF_F_NO_PREALLOC);
	MAP_TYPE(key, struct address_port);
	MAP_TYPE(value, __u32);
} open_ports SEC(".maps");

struct {
	MAP_NUMBER(type, BPF_MAP_TYPE_HASH);
	MAP_NUMBER(max_entries, 262144);
	MAP_NUMBER(map_flags, BPF_F_NO_PREALLOC);
	MAP_TYPE(key, struct address_port);
	MAP_TYPE(value, struct destination);
} destinations SEC(".maps");

/* The host's own addresses outside 127.0.0.0/8. */
struct {
	MAP_NUMBER(type, BPF_MAP_TYPE_HASH);
	MAP_NUMBER(max_entries, 4096);
	MAP_NUMBER(map_flags, BPF_F_NO_PREALLOC);
	MAP_TYPE(key, __u32);
	MAP_TYPE(value, __u32);
} host_addresses SEC(".maps");

/* Where an IPv6-only listener really is: (app address, port asked for) -> port. */
struct {
	MAP_NUMBER(type, BPF_MAP_TYPE_LRU_HASH);
	MAP_NUMBER(max_entries, 4096);
	MAP_TYPE(key, struct address_port);
	MAP_TYPE(value, __u32);
} v6_ports SEC(".maps");

/* Original destinations, from the SYN until the proxy asks. Stale entries do no harm: a connection reaches
 * the proxy's outbound listener only after its own SYN has written them anew. See originals.h. */
struct {
	MAP_NUMBER(type, BPF_MAP_TYPE_ARRAY);
	MAP_NUMBER(max_entries, 65536);
	MAP_TYPE(key, __u32);
	MAP_TYPE(value, struct slot);
} slots SEC(".maps");

struct {
	MAP_NUMBER(type, BPF_MAP_TYPE_LRU_HASH);
	MAP_NUMBER(max_entries, 16384);
	MAP_TYPE(key, struct tuple);
	MAP_TYPE(value, struct address_port);
} originals SEC(".maps");

/* By socket cookie; see peers.h. */
struct {
	MAP_NUMBER(type, BPF_MAP_TYPE_ARRAY);
	MAP_NUMBER(max_entries, 65536);
	MAP_TYPE(key, __u32);
	MAP_TYPE(value, struct peer);
} peers SEC(".maps");

struct {
	MAP_NUMBER(type, BPF_MAP_TYPE_SK_STORAGE);
	MAP_NUMBER(max_entries, 0);
	MAP_NUMBER(map_flags, BPF_F_NO_PREALLOC);
	MAP_TYPE(key, int);
	MAP_TYPE(value, struct socket_state);
} sockets SEC(".maps");

struct {
	MAP_NUMBER(type, BPF_MAP_TYPE_ARRAY);
	MAP_NUMBER(max_entries, 1);
	MAP_TYPE(key, __u32);
	MAP_TYPE(value, struct settings);
} settings SEC(".maps");

#endif
