package stats

// Reason says why a frame was not forwarded. Every frame that a worker takes
// and does not send ends with exactly one.
type Reason uint8

// The reasons, in the order in which a frame meets them.
const (
	ReasonNone         Reason = iota // not dropped
	Truncated                        // shorter than its headers say
	Malformed                        // a header contradicts itself
	BadChecksum                      // IPv4 header checksum
	StackedVLAN                      // more than one VLAN tag
	ExtensionHeaders                 // IPv6 extension headers beyond what is walked
	NotIP                            // neither IPv4, IPv6 nor ARP
	ForeignMAC                       // addressed to another station on the link
	UnknownVIP                       // the destination is no VIP of ours (any more)
	NotAnnounced                     // ARP or NDP that asks for a VIP that another node announces, or none
	AnnouncedElsewhere               // ARP or NDP in which another station claims such a VIP
	AddressConflict                  // ARP or NDP in which another station claims a VIP that this node announces
	Reflected                        // weir's own announcement, back by another interface
	Tunnelled                        // already IP in IP, addressed to a VIP: a loop, or somebody's mistake
	FragmentTiny                     // a first fragment that ends before its transport header does
	FragmentOverlap                  // overlaps another fragment of its datagram
	FragmentDuplicate                // was there before
	FragmentLost                     // its first fragment never came, or there was no room to wait for it
	ICMPUnhandled                    // ICMP to a VIP that is neither an echo request nor an error about a flow
	ICMPLimited                      // more ICMP errors from one source than are passed on
	PingRefused                      // echo request to a VIP that does not answer (now)
	UnhandledProtocol                // neither TCP, UDP nor ICMP
	NoService                        // the VIP has no service on this protocol and port
	Denied                           // the service's access list does not let the source in
	ServiceLimit                     // above the service's own rate limit
	SourceLimit                      // above the service's rate limit per source prefix
	NoFlow                           // an answer, or an ICMP error, of no known flow
	NoBackend                        // the service has no backend that may take the packet
	Unresolved                       // backends there are, but no next hop to any of them is resolved
	PortsExhausted                   // no SNAT port is free for a new flow to this backend
	TableFull                        // mode nat: no room in the flow table for a new flow
	Looped                           // would go back to the station it came from (mode dsr), or comes from a VIP
	TTLExpired                       // would leave a tunnel or NAT with TTL or hop limit 0
	Untranslatable                   // cannot be said in the other version of IP
	TooBig                           // longer than the egress interface's MTU after rewriting
	NoEgress                         // no worker runs on the interface it would leave by
	HandoverFull                     // the worker of the other interface does not keep up
	TransmitFull                     // the NIC queue took no more, or its link is down
	NumReasons
)

var reasonText = [NumReasons]struct{ name, help string }{
	ReasonNone:         {"none", "not dropped"},
	Truncated:          {"truncated", "shorter than its headers say"},
	Malformed:          {"malformed", "a header contradicts itself"},
	BadChecksum:        {"bad_checksum", "IPv4 header checksum is wrong"},
	StackedVLAN:        {"stacked_vlan", "more than one VLAN tag"},
	ExtensionHeaders:   {"extension_headers", "IPv6 extension headers beyond what is walked"},
	NotIP:              {"not_ip", "neither IPv4, IPv6 nor ARP"},
	ForeignMAC:         {"foreign_mac", "addressed to another station on the link"},
	UnknownVIP:         {"unknown_vip", "destination is no VIP"},
	NotAnnounced:       {"not_announced", "asked for by ARP or NDP, and announced by another node or not at all"},
	AnnouncedElsewhere: {"announced_elsewhere", "claimed by ARP or NDP, and not announced by this node"},
	AddressConflict:    {"address_conflict", "another station claims a VIP by ARP or NDP"},
	Reflected:          {"reflected", "weir's own announcement, back by another interface"},
	Tunnelled:          {"tunnelled", "already IP in IP and addressed to a VIP: a loop"},
	FragmentTiny:       {"fragment_tiny", "a first fragment ends before its transport header"},
	FragmentOverlap:    {"fragment_overlap", "overlaps another fragment of its datagram"},
	FragmentDuplicate:  {"fragment_duplicate", "a fragment that was there before"},
	FragmentLost:       {"fragment_lost", "first fragment never came, or no room to wait for it"},
	ICMPUnhandled:      {"icmp_unhandled", "ICMP that is neither ping nor an error about a flow"},
	ICMPLimited:        {"icmp_limited", "more ICMP errors from one source than passed on"},
	PingRefused:        {"ping_refused", "the VIP is not to answer ping (now)"},
	UnhandledProtocol:  {"unhandled_protocol", "neither TCP, UDP nor ICMP"},
	NoService:          {"no_service", "no service on this protocol and port"},
	Denied:             {"denied", "the access list does not let the source in"},
	ServiceLimit:       {"service_limit", "above the service's rate limit"},
	SourceLimit:        {"source_limit", "above the rate limit of its source prefix"},
	NoFlow:             {"no_flow", "an answer or ICMP error of no known flow"},
	NoBackend:          {"no_backend", "the service has no usable backend"},
	Unresolved:         {"unresolved", "no next hop to any backend is resolved"},
	PortsExhausted:     {"ports_exhausted", "no SNAT port is free for a new flow"},
	TableFull:          {"table_full", "no room in the flow table for a new NAT flow"},
	Looped:             {"looped", "would go back where it came from, or comes from a VIP"},
	TTLExpired:         {"ttl_expired", "TTL or hop limit used up"},
	Untranslatable:     {"untranslatable", "cannot be said in the other version of IP"},
	TooBig:             {"too_big", "longer than the MTU on the way to the backend"},
	NoEgress:           {"no_egress", "no worker runs on the egress interface"},
	HandoverFull:       {"handover_full", "the egress interface's worker does not keep up"},
	TransmitFull:       {"transmit_full", "the NIC took no more, or its link is down"},
}

// String returns the reason's name as shown in tables and metrics.
func (r Reason) String() string {
	if r >= NumReasons {
		return "invalid"
	}
	return reasonText[r].name
}

// Help returns the reason in words.
func (r Reason) Help() string {
	if r >= NumReasons {
		return ""
	}
	return reasonText[r].help
}
