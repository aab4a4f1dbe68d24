package sink

import (
	"errors"
	"net"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/vishvananda/netlink"

	"weir/lab/labtest"
	"weir/lab/netlab"
)

const port = 9

// frame returns a frame of at least 60 bytes with the protocol on top of IPv4.
func frame(t *testing.T, transport gopacket.SerializableLayer, protocol layers.IPProtocol, options ...layers.IPv4Option) []byte {
	t.Helper()
	b := gopacket.NewSerializeBuffer()
	err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true},
		&layers.Ethernet{SrcMAC: make([]byte, 6), DstMAC: make([]byte, 6), EthernetType: layers.EthernetTypeIPv4},
		&layers.IPv4{Version: 4, TTL: 64, Protocol: protocol, SrcIP: net.IP{198, 18, 0, 0}, DstIP: net.IP{203, 0, 113, 10}, Options: options},
		transport, gopacket.Payload(make([]byte, 18)))
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestSink(t *testing.T) {
	labtest.NeedRoot(t)
	lab, err := netlab.New("sink")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := lab.Close(); err != nil {
			t.Error(err)
		}
	})
	host, err := lab.Host("host")
	if err != nil {
		t.Fatal(err)
	}
	var s *Sink
	err = host.Do(func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		s, err = Open(lo.Attrs().Index, port)
		return err
	})
	if errors.Is(err, ebpf.ErrNotSupported) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for range 2 {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		}
	})

	const next, shot = 0xffffffff, 2
	datagram := frame(t, &layers.UDP{DstPort: port}, layers.IPProtocolUDP)
	ipv6 := append([]byte(nil), datagram...)
	ipv6[12], ipv6[13] = 0x86, 0xdd
	segment := func(tcp layers.TCP) []byte {
		tcp.DstPort = port
		return frame(t, &tcp, layers.IPProtocolTCP)
	}
	var want Counts
	for _, test := range []struct {
		name  string
		frame []byte
		count *uint64 // nil: it is left alone
	}{
		{"datagram to the port", datagram, &want.Datagrams},
		{"another one", datagram, &want.Datagrams},
		{"to another port", frame(t, &layers.UDP{SrcPort: port, DstPort: 10}, layers.IPProtocolUDP), nil},
		{"connection request", segment(layers.TCP{SYN: true}), &want.Openings},
		{"answer to one", segment(layers.TCP{SYN: true, ACK: true}), &want.Segments},
		{"acknowledgement", segment(layers.TCP{ACK: true}), &want.Segments},
		{"TCP to another port", frame(t, &layers.TCP{SrcPort: port, DstPort: 10}, layers.IPProtocolTCP), nil},
		{"ICMP", frame(t, &layers.UDP{DstPort: port}, layers.IPProtocolICMPv4), nil},
		{"not IPv4", ipv6, nil},
		{"too short", datagram[:40], nil},
		{"IPv4 options", frame(t, &layers.UDP{DstPort: port}, layers.IPProtocolUDP, layers.IPv4Option{OptionType: 1}), nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := s.objects.Programs[sinkProgCountSkb].Run(&ebpf.RunOptions{Data: test.frame})
			if err != nil {
				t.Fatal(err)
			}
			verdict := uint32(next)
			if test.count != nil {
				verdict = shot
				*test.count++
			}
			if got != verdict {
				t.Errorf("verdict %d, want %d", int32(got), int32(verdict))
			}
			if n, err := s.Arrived(); err != nil || n != want {
				t.Errorf("counted %+v, %v; want %+v", n, err, want)
			}
		})
	}
}
