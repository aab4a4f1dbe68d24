package decap

import "encoding/binary"

const (
	xdpDrop = 1
	xdpPass = 2
)

// model is the program once more, for the fuzzer: written from the package
// comment on plain slices, with a whole checksum where the program has an
// incremental one. Its VIPs, hosts and sources are those of frames_test.go.
func model(in []byte) (out []byte, action uint32, counter decapCounter) {
	pass := func(c decapCounter) ([]byte, uint32, decapCounter) { return in, xdpPass, c }
	l2 := 14
	if len(in) >= 18 && binary.BigEndian.Uint16(in[12:]) == 0x8100 {
		l2 = 18
	}
	ip := in[l2:]

	// The outer header.
	var next, outerECN byte
	var length, total int
	var src, dst string
	outerFamily := 0
	switch binary.BigEndian.Uint16(in[l2-2:]) {
	case 0x0800:
		outerFamily = 4
		if len(ip) < 20 {
			return pass(decapCounterPASSED_OUTER_MALFORMED)
		}
		next, outerECN = ip[9], ip[1]&3
		length, total = int(ip[0]&15)*4, int(binary.BigEndian.Uint16(ip[2:]))
		src, dst = string(ip[12:16]), string(ip[16:20])
	case 0x86dd:
		outerFamily = 6
		if len(ip) < 40 {
			return pass(decapCounterPASSED_OUTER_MALFORMED)
		}
		next, outerECN = ip[6], ip[1]>>4&3
		length, total = 40, 40+int(binary.BigEndian.Uint16(ip[4:]))
		src, dst = string(ip[8:24]), string(ip[24:40])
	}
	if outerFamily == 0 || next != 4 && next != 41 {
		return pass(decapCounterPASSED_NOT_TUNNEL)
	}
	if int(ip[0]>>4) != outerFamily || length < 20 || total < length || total > len(ip) {
		return pass(decapCounterPASSED_OUTER_MALFORMED)
	}
	if outerFamily == 4 && binary.BigEndian.Uint16(ip[6:])&0x3fff != 0 {
		return pass(decapCounterPASSED_OUTER_FRAGMENT)
	}
	if dst != string(hosts[outerFamily].AsSlice()) {
		return pass(decapCounterPASSED_OUTER_DESTINATION)
	}
	if src != string(weirs[outerFamily].AsSlice()) {
		return pass(decapCounterPASSED_OUTER_SOURCE)
	}

	// The inner header: it must fit the outer one's total length, not only the frame.
	inner := ip[length:total]
	innerFamily := 4
	if next == 41 {
		innerFamily = 6
	}
	least := map[int]int{4: 20, 6: 40}[innerFamily]
	if len(inner) < least || int(inner[0]>>4) != innerFamily {
		return pass(decapCounterPASSED_INNER_MALFORMED)
	}
	var innerECN byte
	if innerFamily == 4 {
		header, all := int(inner[0]&15)*4, int(binary.BigEndian.Uint16(inner[2:]))
		if header < 20 || all < header || all > len(inner) {
			return pass(decapCounterPASSED_INNER_MALFORMED)
		}
		innerECN, dst = inner[1]&3, string(inner[16:20])
	} else {
		if 40+int(binary.BigEndian.Uint16(inner[4:])) > len(inner) {
			return pass(decapCounterPASSED_INNER_MALFORMED)
		}
		innerECN, dst = inner[1]>>4&3, string(inner[24:40])
	}
	if dst != string(vips[innerFamily].AsSlice()) {
		return pass(decapCounterPASSED_INNER_DESTINATION)
	}

	ecn := ecnTable[innerECN][outerECN]
	if ecn == ecnDrop {
		return in, xdpDrop, decapCounterDROPPED_ECN
	}
	out = append(out, in[:l2]...)
	binary.BigEndian.PutUint16(out[l2-2:], map[int]uint16{4: 0x0800, 6: 0x86dd}[innerFamily])
	out = append(out, ip[length:]...)
	h := out[l2:]
	if ecn == innerECN {
		// Not one bit changes.
	} else if innerFamily == 4 {
		// What is wrong with the checksum before must be as wrong after.
		wrong := onesSum(h[:20])
		h[1] = h[1]&^3 | ecn
		fixChecksum(h[:20], wrong)
	} else {
		h[1] = h[1]&^0x30 | ecn<<4
	}
	counter = map[[2]int]decapCounter{
		{4, 4}: decapCounterSTRIPPED_4IN4, {6, 6}: decapCounterSTRIPPED_6IN6,
		{4, 6}: decapCounterSTRIPPED_4IN6, {6, 4}: decapCounterSTRIPPED_6IN4,
	}[[2]int{innerFamily, outerFamily}]
	return out, xdpPass, counter
}

const ecnDrop = 0xff

// ecnTable is figure 4 of RFC 6040, by inner and outer codepoint: 0 not-ECT,
// 1 ECT(1), 2 ECT(0), 3 CE.
var ecnTable = [4][4]byte{
	0: {0, 0, 0, ecnDrop},
	1: {1, 1, 1, 3},
	2: {2, 1, 2, 3},
	3: {3, 3, 3, 3},
}

// onesSum is the one's complement sum, folded, zero written as 0xffff.
func onesSum(b []byte) uint16 {
	var sum uint32
	for i := 0; i < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	if sum == 0 {
		return 0xffff
	}
	return uint16(sum)
}

// fixChecksum changes the checksum field so that onesSum gives want again. Of
// the two zeros it takes the one that RFC 1624, equation 3 gives: a field of
// 0x0000 comes from a sum of 0xffff.
func fixChecksum(h []byte, want uint16) {
	binary.BigEndian.PutUint16(h[10:], 0)
	rest := uint32(onesSum(h))
	field := uint32(want) + (0xffff - rest)
	for field > 0xffff {
		field = field&0xffff + field>>16
	}
	if field == 0xffff {
		field = 0
	}
	binary.BigEndian.PutUint16(h[10:], uint16(field))
}
