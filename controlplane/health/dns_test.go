package health

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// answerDNS is the zone of these tests.
func answerDNS(w dns.ResponseWriter, r *dns.Msg) {
	m := new(dns.Msg)
	m.SetReply(r)
	q := r.Question[0]
	add := func(records ...string) {
		for _, text := range records {
			record, err := dns.NewRR(q.Name + " 60 " + text)
			if err != nil {
				panic(err)
			}
			m.Answer = append(m.Answer, record)
		}
	}
	overTCP := w.RemoteAddr().Network() == "tcp"
	switch strings.ToLower(q.Name) + dns.TypeToString[q.Qtype] {
	case "example.com.A":
		add("A 192.0.2.1", "A 192.0.2.2")
	case "example.com.AAAA":
		add("AAAA 2001:db8::1")
	case "example.com.TXT":
		add(`TXT "v=spf1 " "-all"`)
	case "example.com.MX":
		add("MX 10 Mail.Example.com.")
	case "www.example.com.A":
		add("CNAME example.com.")
		m.Answer = append(m.Answer, &dns.A{Hdr: dns.RR_Header{Name: "example.com.", Rrtype: dns.TypeA, Class: dns.ClassINET}, A: []byte{192, 0, 2, 1}})
	case "long.example.com.A":
		if m.Truncated = !overTCP; overTCP {
			for i := range 200 {
				add(fmt.Sprintf("A 198.51.100.%d", i))
			}
		}
	case "transport.example.com.TXT":
		add("TXT " + w.RemoteAddr().Network())
	case "refused.example.com.A":
		m.Rcode, m.Question = dns.RcodeRefused, nil
	case "empty.example.com.A":
	default:
		m.Rcode = dns.RcodeNameError
	}
	_ = w.WriteMsg(m)
}

// serveDNS serves the zone over UDP and TCP on one port.
func serveDNS(t *testing.T, addr string) netip.AddrPort {
	t.Helper()
	l, at := listen(t, addr)
	packets, err := net.ListenPacket("udp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	for _, server := range []*dns.Server{{Listener: l}, {PacketConn: packets}} {
		server.Handler = dns.HandlerFunc(answerDNS)
		started, ended := make(chan struct{}), make(chan error, 1)
		server.NotifyStartedFunc = func() { close(started) }
		go func() { ended <- server.ActivateAndServe() }()
		select {
		case <-started:
		case err := <-ended:
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = server.Shutdown() })
	}
	return at
}

func TestDNSProbe(t *testing.T) {
	tests := []struct {
		name  string
		probe DNS
		want  string
	}{
		{"default", DNS{Name: "example.com"}, ""},
		{"absolute, in capitals", DNS{Name: "EXAMPLE.com.", Type: "a"}, ""},
		{"tcp", DNS{Name: "transport.example.com", Type: "TXT", Transport: "tcp", Expect: []string{"tcp"}}, ""},
		{"udp", DNS{Name: "transport.example.com", Type: "TXT", Expect: []string{"udp"}}, ""},
		{"both addresses", DNS{Name: "example.com", Expect: []string{"192.0.2.2", "192.0.2.1"}}, ""},
		{"another address", DNS{Name: "example.com", Expect: []string{"192.0.2.1", "192.0.2.3"}}, `answer "192.0.2.1, 192.0.2.2" lacks 192.0.2.3`},
		{"IPv6, written otherwise", DNS{Name: "example.com", Type: "AAAA", Expect: []string{"2001:0db8:0::1"}}, ""},
		{"text in pieces", DNS{Name: "example.com", Type: "TXT", Expect: []string{"v=spf1 -all"}}, ""},
		{"as in a zone file", DNS{Name: "example.com", Type: "MX", Expect: []string{"10 mail.example.com"}}, ""},
		{"by an alias", DNS{Name: "www.example.com", Expect: []string{"192.0.2.1", "example.com"}}, ""},
		{"truncated", DNS{Name: "long.example.com", Expect: []string{"198.51.100.199"}}, ""},
		{"nothing there", DNS{Name: "empty.example.com"}, ""},
		{"nothing there, but wanted", DNS{Name: "empty.example.com", Expect: []string{"192.0.2.1"}}, `answer "" lacks 192.0.2.1`},
		{"no such name", DNS{Name: "none.example.com"}, "DNS code NXDOMAIN, want NOERROR"},
		{"no such name, as wanted", DNS{Name: "none.example.com", Codes: []string{"NOERROR", "nxdomain"}}, ""},
		{"refused, without the question", DNS{Name: "refused.example.com"}, "DNS code REFUSED, want NOERROR"},
		{"the root", DNS{Name: ".", Codes: []string{"NXDOMAIN"}}, ""},
		{"bad name", DNS{Name: "a..b"}, `"a..b" is no domain name`},
		{"bad type", DNS{Name: "a", Type: "B"}, `unknown DNS type "B"`},
		{"bad code", DNS{Name: "a", Codes: []string{"OK"}}, `unknown DNS response code "OK"`},
		{"bad transport", DNS{Name: "a", Transport: "sctp"}, `unknown DNS transport "sctp"`},
	}
	for _, addr := range []string{"127.0.0.1", "::1"} {
		at := serveDNS(t, addr)
		for _, tt := range tests {
			t.Run(addr+" "+tt.name, func(t *testing.T) {
				expect(t, try(t, Check{Targets: []netip.AddrPort{at}, Probe: tt.probe}, time.Minute), tt.want)
			})
		}
	}
}

// What a datagram may be other than the answer.
func TestDNSProbeLeavesForgeriesAside(t *testing.T) {
	reply := func(change func(*dns.Msg)) func([]byte) []byte {
		return func(question []byte) []byte {
			m := new(dns.Msg)
			if err := m.Unpack(question); err != nil {
				return nil
			}
			m.Response = true
			change(m)
			b, err := m.Pack()
			if err != nil {
				panic(err)
			}
			return b
		}
	}
	right := reply(func(*dns.Msg) {})
	for _, tt := range []struct {
		name   string
		answer func([]byte) []byte
		want   string // alone; "" if it is the answer
	}{
		{"answer", right, ""},
		{"identifier", reply(func(m *dns.Msg) { m.Id++ }), "no answer"},
		{"name", reply(func(m *dns.Msg) { m.Question[0].Name = "example.net." }), "no answer"},
		{"type", reply(func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeMX }), "no answer"},
		{"no question", reply(func(m *dns.Msg) { m.Question = nil }), "no answer"},
		{"a question", reply(func(m *dns.Msg) { m.Response = false }), "no answer"},
		{"nothing", func([]byte) []byte { return []byte{} }, "no answer"},
		{"garbage", func(q []byte) []byte { return append(q[:2:2], "garbage"...) }, "read DNS answer"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			probe := DNS{Name: "example.com"}
			alone := serveUDP(t, "127.0.0.1", func(q []byte) [][]byte { return [][]byte{tt.answer(q)} })
			expect(t, try(t, Check{Targets: []netip.AddrPort{alone}, Probe: probe}, 100*time.Millisecond), tt.want)
			if tt.want == "no answer" {
				first := serveUDP(t, "127.0.0.1", func(q []byte) [][]byte { return [][]byte{tt.answer(q), right(q)} })
				expect(t, try(t, Check{Targets: []netip.AddrPort{first}, Probe: probe}, time.Minute), "")
			}
		})
	}
}

func FuzzDNSAnswer(f *testing.F) {
	question := &dns.Msg{Question: []dns.Question{{Name: "example.com.", Qtype: dns.TypeA, Qclass: dns.ClassINET}}}
	question.Id = 0x1234
	answer := new(dns.Msg)
	answer.SetReply(question)
	for _, text := range []string{"example.com. 1 A 192.0.2.1", "example.com. 1 TXT a b", "example.com. 1 MX 1 a."} {
		record, err := dns.NewRR(text)
		if err != nil {
			f.Fatal(err)
		}
		answer.Answer = append(answer.Answer, record)
		b, err := answer.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte{0x12, 0x34})
	p := &dnsProbe{codes: []int{dns.RcodeSuccess}, expect: []string{"192.0.2.1"}}
	f.Fuzz(func(t *testing.T, b []byte) {
		answer, err := parseAnswer(b, question)
		if err != nil {
			return
		}
		if binary.BigEndian.Uint16(b) != 0x1234 || !answer.Response {
			t.Fatal("took what is no answer")
		}
		err = p.judge(answer)
		found := false
		for _, record := range answer.Answer {
			a, ok := record.(*dns.A)
			found = found || ok && a.A.String() == "192.0.2.1"
		}
		if err == nil && answer.Rcode != dns.RcodeSuccess {
			t.Fatalf("code %d is good", answer.Rcode)
		}
		if found && answer.Rcode == dns.RcodeSuccess && err != nil {
			t.Fatal(errors.Join(errors.New("the address is there"), err))
		}
	})
}
