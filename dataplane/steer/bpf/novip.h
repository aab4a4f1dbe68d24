/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */

// What is weir's although it is not addressed to a VIP: the packets of weir's
// ports of an address of the box's own, the answers of backends that see their
// clients' addresses, ICMP errors about either, and what lowers the path MTU of
// a tunnel.

#ifndef WEIR_NOVIP_H
#define WEIR_NOVIP_H

#include "frame.h"

// Twice what Steer accepts: it adds all that is new before it removes anything.
#define SHARED (2 * 4096)
#define ANSWERS (2 * 65536)
#define LOCALS (2 * 16384)
#define TUNNELS (2 * 16384)

// How many fragmented datagrams can be under way at the same time.
#define DATAGRAMS 16384

// Which of the maps have anything in them, so that who has no NAT does not pay.
enum {
	USE_SHARED = 1,
	USE_ANSWERS = 2,
	USE_TUNNELS = 4,
};

// Written by Steer: the sum of what is in use.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} uses SEC(".maps");

struct range {
	__u16 lo; // in the host's byte order, as hi
	__u16 hi; // the last port
};

// Written by Steer: weir's ports of addresses of the box's own.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, SHARED);
	__type(key, struct address);
	__type(value, struct range);
} shared SEC(".maps");

struct endpoint {
	struct address address;
	__u16 proto; // in the host's byte order
	__be16 port;
};

// Written by Steer: where packets come from that backends answer clients with.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, ANSWERS);
	__type(key, struct endpoint);
	__type(value, __u32);
} answers SEC(".maps");

// Written by Steer: the box's own addresses, to which a backend's packet is no
// answer to a client.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, LOCALS);
	__type(key, struct address);
	__type(value, __u32);
} locals SEC(".maps");

// Written by Steer: the far ends of weir's tunnels.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, TUNNELS);
	__type(key, struct address);
	__type(value, __u32);
} tunnels SEC(".maps");

// What the fragments of a datagram have in common (RFC 791, section 3.2).
struct datagram {
	struct address source;
	struct address destination;
	__u32 proto;
	__be32 id;
};

// Written by the programs: the datagrams whose first fragment was weir's.
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, DATAGRAMS);
	__type(key, struct datagram);
	__type(value, __u32);
} datagrams SEC(".maps");

// An IP packet, or the one that an ICMP error is about.
struct packet {
	struct datagram datagram;
	__u32 payload; // offset in the frame
	bool later;    // a fragment, and not the first
	bool more;     // a fragment, and not the last
};

static __always_inline bool read_ipv4(void *ctx, enum hook hook, __u32 off, struct packet *packet)
{
	struct ipv4 ip;

	if (!load(ctx, hook, off, &ip, sizeof(ip)))
		return false;
	__u32 len = (ip.version_ihl & 0xf) * 4;
	if (ip.version_ihl >> 4 != 4 || len < sizeof(ip))
		return false;
	set_ipv4(&packet->datagram.source, ip.source);
	set_ipv4(&packet->datagram.destination, ip.destination);
	packet->datagram.proto = ip.proto;
	packet->datagram.id = ip.id;
	packet->payload = off + len;
	packet->later = ip.fragment & bpf_htons(0x1fff);
	packet->more = ip.fragment & bpf_htons(0x2000);
	return true;
}

// read_ipv6 reads a packet with no extension header but a fragment header.
static __always_inline bool read_ipv6(void *ctx, enum hook hook, __u32 off, struct packet *packet)
{
	struct ipv6 ip;
	struct ipv6_fragment fragment = {};

	if (!load(ctx, hook, off, &ip, sizeof(ip)) || (ip.version & bpf_htonl(0xf0000000)) != bpf_htonl(0x60000000))
		return false;
	if (is_mapped(&ip.source) || is_mapped(&ip.destination))
		return false;
	off += sizeof(ip);
	if (ip.next == PROTO_FRAGMENT) {
		if (!load(ctx, hook, off, &fragment, sizeof(fragment)))
			return false;
		ip.next = fragment.next;
		off += sizeof(fragment);
	}
	packet->datagram.source = ip.source;
	packet->datagram.destination = ip.destination;
	packet->datagram.proto = ip.next;
	packet->datagram.id = fragment.id;
	packet->payload = off;
	packet->later = fragment.offset & bpf_htons(0xfff8);
	packet->more = fragment.offset & bpf_htons(1);
	return true;
}

static __always_inline bool read_packet(void *ctx, enum hook hook, bool v6, __u32 off, struct packet *packet)
{
	return v6 ? read_ipv6(ctx, hook, off, packet) : read_ipv4(ctx, hook, off, packet);
}

// read_ports reads the ports of a packet that has any.
static __always_inline bool read_ports(void *ctx, enum hook hook, const struct packet *packet, struct ports *ports)
{
	__u32 proto = packet->datagram.proto;

	return (proto == PROTO_TCP || proto == PROTO_UDP) && !packet->later &&
	       load(ctx, hook, packet->payload, ports, sizeof(*ports));
}

static __always_inline bool is_shared(const struct address *address, __be16 port)
{
	const struct range *range = bpf_map_lookup_elem(&shared, address);

	return range && bpf_ntohs(port) >= range->lo && bpf_ntohs(port) <= range->hi;
}

// is_answer tells whether a packet from this backend and port to this address
// is what a client waits for.
static __always_inline bool is_answer(const struct address *from, __u32 proto, __be16 port, const struct address *to)
{
	struct endpoint endpoint = {.address = *from, .proto = proto, .port = port};

	return bpf_map_lookup_elem(&answers, &endpoint) && !bpf_map_lookup_elem(&locals, to);
}

// is_error_about tells whether an ICMP error is about a packet that weir sent: by
// a tunnel, from a shared address, or from a client to its backend. The last goes
// to the client and comes by here just as the backend's answers do.
static __always_inline bool is_error_about(void *ctx, enum hook hook, bool v6, const struct packet *error, __u32 use)
{
	struct icmp icmp;
	struct packet about;
	struct ports ports;

	if (!load(ctx, hook, error->payload, &icmp, sizeof(icmp)))
		return false;
	bool is_error = v6 ? icmp.type >= 1 && icmp.type <= 4 : icmp.type == 3 || icmp.type == 11 || icmp.type == 12;
	bool too_big = v6 ? icmp.type == 2 : icmp.type == 3 && icmp.code == 4;
	if (!is_error || !read_packet(ctx, hook, v6, error->payload + sizeof(icmp), &about))
		return false;

	const struct address *from = &about.datagram.source, *to = &about.datagram.destination;
	__u32 proto = about.datagram.proto;
	if (proto == PROTO_IPV4 || proto == PROTO_IPV6)
		return (use & USE_TUNNELS) && too_big && bpf_map_lookup_elem(&tunnels, to);
	if (!read_ports(ctx, hook, &about, &ports))
		return false;
	if ((use & USE_SHARED) && is_same(from, &error->datagram.destination) && is_shared(from, ports.source))
		return true;
	return (use & USE_ANSWERS) && is_answer(to, proto, ports.destination, &error->datagram.destination);
}

// is_weirs_without_vip tells whether an IP packet at off, sent to the interface's
// own MAC address and to no VIP, is weir's. Of a fragmented one, what the first
// fragment says goes for those that come after it; one that comes before it is
// the kernel's.
static __always_inline bool is_weirs_without_vip(void *ctx, enum hook hook, bool v6, __u32 off)
{
	__u32 zero = 0;
	__u32 *in_use = bpf_map_lookup_elem(&uses, &zero);

	if (!in_use || *in_use == 0)
		return false;
	__u32 use = *in_use;
	struct packet packet;
	struct ports ports;
	bool weirs = false;

	if (!read_packet(ctx, hook, v6, off, &packet))
		return false;
	const struct datagram *datagram = &packet.datagram;
	if (packet.later)
		return bpf_map_lookup_elem(&datagrams, datagram) != NULL;
	if (datagram->proto == (v6 ? PROTO_ICMPV6 : PROTO_ICMP))
		weirs = is_error_about(ctx, hook, v6, &packet, use);
	else if (read_ports(ctx, hook, &packet, &ports))
		weirs = ((use & USE_SHARED) && is_shared(&datagram->destination, ports.destination)) ||
			((use & USE_ANSWERS) && is_answer(&datagram->source, datagram->proto, ports.source, &datagram->destination));
	if (packet.more) {
		// An identification comes again. What it stood for before is over then.
		if (weirs)
			bpf_map_update_elem(&datagrams, datagram, &zero, BPF_ANY);
		else
			bpf_map_delete_elem(&datagrams, datagram);
	}
	return weirs;
}

#endif
