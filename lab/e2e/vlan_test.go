package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"weir/dataplane/packet"
	"weir/dataplane/packet/packettest"
	"weir/lab/site"
)

// layersOf takes a frame apart without any of weir's own views.
func layersOf(frame []byte) gopacket.Packet {
	return gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default)
}

// tagOf returns a frame's VLAN ID, 0 if it has none.
func tagOf(p gopacket.Packet) uint16 {
	if tag, ok := p.Layer(layers.LayerTypeDot1Q).(*layers.Dot1Q); ok {
		return tag.VLANIdentifier
	}
	return 0
}

func macOf(t *testing.T, text string) packet.MAC {
	t.Helper()
	mac, err := net.ParseMAC(text)
	if err != nil {
		t.Fatal(err)
	}
	return packet.MAC(mac)
}

// TestVLAN sends frames with and without an 802.1Q tag to VIPs, and looks at
// what arrives at the backend: the tag is the backend's, never the client's.
// The lab's kernel may have no VLAN interfaces, so both ends are by hand.
func TestVLAN(t *testing.T) {
	t.Parallel()
	eachDriver(t, func(t *testing.T, d driver) {
		s := newSite(t, site.Options{Backends: 1, Driver: d.driver, XDPMode: d.xdpMode})
		b := s.Backends[0]
		backend := macOf(t, b.MAC)
		for _, addr := range []netip.Addr{b.Addr4, b.Addr6} {
			s.must(s.WeirHost.AddNeigh(addr, backend[:], site.Front))
		}
		s.start()
		weir, clientLink := macOf(t, s.iface(site.Front).MAC), s.link(s.ClientHost, "eth0")
		client := tap(t, s.ClientHost, "eth0")
		wires := tapSwitch(t, s.FrontNet) // before weir decap on the backend

		port := uint16(40000)
		for _, backendVLAN := range []int{0, 42} {
			s.reload(func(c *site.Config) {
				for i := range c.Services {
					c.Services[i].Backends[0].VLAN = backendVLAN
				}
			})
			for _, clientVLAN := range []uint16{0, 7} {
				for _, vip := range s.VIPs() {
					t.Run(fmt.Sprintf("from-%d-to-%d-%s", clientVLAN, backendVLAN, vip.Addr()), func(t *testing.T) {
						port++
						spec := packettest.Spec{
							SrcMAC: clientLink, DstMAC: weir, VLAN: clientVLAN,
							Src: netip.AddrPortFrom(s.clientOf(vip), port), Dst: vip,
							Proto: packet.ProtoUDP, Payload: fmt.Appendf(nil, "by hand %d", port),
						}
						s.must(client.send(packettest.Frame(spec)))
						s.await("the frame reaches the backend", func() error {
							found := wires.received(func(f []byte) bool {
								return bytes.Contains(f, spec.Payload) && packet.MAC(f[:6]) == backend
							})
							if len(found) == 0 {
								return errors.New("nothing has")
							}
							p := layersOf(found[0])
							if got := tagOf(p); got != uint16(backendVLAN) {
								t.Errorf("it has VLAN %d, want %d: %v", got, backendVLAN, p)
							}
							if got := packet.MAC(found[0][6:12]); got != weir {
								t.Errorf("it comes from %v, want %v", got, weir)
							}
							return nil
						})
					})
				}
			}
		}
		t.Run("arp", func(t *testing.T) {
			spec := packettest.Spec{SrcMAC: clientLink, DstMAC: packet.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, VLAN: 7, Src: netip.AddrPortFrom(s.Client4, 0)}
			s.must(client.send(packettest.ARPRequest(spec, s.DSR4.Addr())))
			s.await("the answer has the tag of the question", func() error {
				found := client.received(func(f []byte) bool {
					p := layersOf(f)
					arp, ok := p.Layer(layers.LayerTypeARP).(*layers.ARP)
					return ok && arp.Operation == layers.ARPReply && tagOf(p) == 7 &&
						bytes.Equal(arp.SourceProtAddress, s.DSR4.Addr().AsSlice()) && bytes.Equal(arp.SourceHwAddress, weir[:])
				})
				if len(found) == 0 {
					return errors.New("there is none")
				}
				return nil
			})
		})
	}, xdpCopy, xdpGeneric, afPacket)
}

// TestNATVLAN sends to VIPs of mode nat from two VLANs and without one. Answers
// go back by the VLAN that the question came from.
func TestNATVLAN(t *testing.T) {
	t.Parallel()
	eachDriver(t, func(t *testing.T, d driver) {
		s := startSite(t, site.Options{Driver: d.driver, XDPMode: d.xdpMode, Modes: site.NAT}, nil)
		weir, clientLink := macOf(t, s.iface(site.Front).MAC), s.link(s.ClientHost, "eth0")
		client := tap(t, s.ClientHost, "eth0")
		port := uint16(40000)
		for _, vlan := range []uint16{7, 0, 8} {
			for _, vip := range s.VIPs() {
				t.Run(fmt.Sprintf("%d-%s", vlan, vip.Addr()), func(t *testing.T) {
					port++
					payload := fmt.Appendf(nil, "by hand %d", port)
					s.must(client.send(packettest.Frame(packettest.Spec{
						SrcMAC: clientLink, DstMAC: weir, VLAN: vlan,
						Src: netip.AddrPortFrom(s.clientOf(vip), port), Dst: vip,
						Proto: packet.ProtoUDP, Payload: payload,
					})))
					s.await("an answer comes back", func() error {
						found := client.received(func(f []byte) bool {
							return bytes.Contains(f, payload) && packet.MAC(f[:6]) == clientLink
						})
						if len(found) == 0 {
							return errors.New("there is none")
						}
						if err := packettest.CheckWellFormed(found[0]); err != nil {
							t.Error(err)
						}
						if p := layersOf(found[0]); tagOf(p) != vlan || packet.MAC(found[0][6:12]) != weir {
							t.Errorf("it should come from %v in VLAN %d: %v", weir, vlan, p)
						}
						return nil
					})
				})
			}
		}
		s.noDrops()
	}, xdpCopy, afPacket)
}
