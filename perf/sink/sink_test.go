package sink

import (
	"errors"
	"net"
	"os"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/vishvananda/netlink"

	"weir/lab/netlab"
)

const port = 9

func requireRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("needs root to load BPF programs")
	}
	t.Skip("needs root to load BPF programs")
}

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
	requireRoot(t)
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
	var want uint64
	for _, test := range []struct {
		name  string
		frame []byte
		want  uint32
	}{
		{"datagram to the port", datagram, shot},
		{"another one", datagram, shot},
		{"to another port", frame(t, &layers.UDP{SrcPort: port, DstPort: 10}, layers.IPProtocolUDP), next},
		{"TCP", frame(t, &layers.TCP{DstPort: port}, layers.IPProtocolTCP), next},
		{"not IPv4", ipv6, next},
		{"too short", datagram[:40], next},
		{"IPv4 options", frame(t, &layers.UDP{DstPort: port}, layers.IPProtocolUDP, layers.IPv4Option{OptionType: 1}), next},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := s.objects.Programs[sinkProgCount].Run(&ebpf.RunOptions{Data: test.frame})
			if err != nil {
				t.Fatal(err)
			}
			if got != test.want {
				t.Errorf("verdict %d, want %d", int32(got), int32(test.want))
			}
			if test.want == shot {
				want++
			}
			if n, err := s.Arrived(); err != nil || n != want {
				t.Errorf("counted %d, %v; want %d", n, err, want)
			}
		})
	}
}
