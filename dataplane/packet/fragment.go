package packet

// FragmentFields is what a fragment says about itself: in the IPv4 header (RFC
// 791 §3.1), or in the IPv6 fragment header (RFC 8200 §4.5).
type FragmentFields struct {
	ID     uint32 // identification of the datagram; 16 bits in IPv4
	Offset int    // where in the datagram's fragmentable part it belongs, in bytes
	Length int    // how much of that part it carries, in bytes
	More   bool   // it is not the last
}

// FragmentFields returns what the fragment in frame says about itself, or zeros
// if it is none. p is what Decode made of frame.
func (p *Parsed) FragmentFields(frame []byte) FragmentFields {
	if !p.Fragment {
		return FragmentFields{}
	}
	b := frame[p.L3:p.End]
	if p.Kind == KindIPv4 {
		ip := IPv4(b)
		return FragmentFields{
			ID:     uint32(ip.ID()),
			Offset: int(ip.FragmentOffset()),
			Length: int(p.End - p.L4),
			More:   ip.Flags()&IPv4MoreFragments != 0,
		}
	}
	at := IPv6(b).FragmentAt(int(p.L4 - p.L3))
	header := IPv6Fragment(b[at:])
	return FragmentFields{
		ID:     header.ID(),
		Offset: int(header.Offset()),
		Length: len(b) - at - IPv6FragmentLen,
		More:   header.More(),
	}
}
