package health

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// DNS asks a question (RFC 1035) and looks at the response code, and at the
// answers if there are to be some. A truncated answer over UDP is asked for
// again over TCP.
type DNS struct {
	Name      string   // asked for
	Type      string   // A, AAAA, TXT and so on; A if empty
	Transport string   // "udp" or "tcp"; "udp" if empty
	Codes     []string // which response codes are good; NOERROR if empty
	Expect    []string // all of them must be among the answers, as addresses, as text, or as the zone file has it
}

func (DNS) String() string { return "dns" }

func (d DNS) complete() Probe {
	if d.Type == "" {
		d.Type = "A"
	}
	if d.Transport == "" {
		d.Transport = "udp"
	}
	if d.Codes = slices.Clone(d.Codes); len(d.Codes) == 0 {
		d.Codes = []string{"NOERROR"}
	}
	d.Expect = slices.Clone(d.Expect)
	return d
}

// dnsProbe is a DNS prepared for one target.
type dnsProbe struct {
	*equipment
	to        netip.AddrPort
	transport string
	question  dns.Question
	codes     []int
	expect    []string // in canonical form
}

func (d DNS) prepare(e *equipment, to netip.AddrPort) (attempt, error) {
	if _, ok := dns.IsDomainName(d.Name); !ok {
		return nil, fmt.Errorf("%q is no domain name", d.Name)
	}
	kind, ok := dns.StringToType[strings.ToUpper(d.Type)]
	if !ok {
		return nil, fmt.Errorf("unknown DNS type %q", d.Type)
	}
	if d.Transport != "udp" && d.Transport != "tcp" {
		return nil, fmt.Errorf("unknown DNS transport %q, want udp or tcp", d.Transport)
	}
	p := &dnsProbe{equipment: e, to: to, transport: d.Transport, question: dns.Question{Name: dns.Fqdn(d.Name), Qtype: kind, Qclass: dns.ClassINET}}
	for _, name := range d.Codes {
		code, ok := dns.StringToRcode[strings.ToUpper(name)]
		if !ok {
			return nil, fmt.Errorf("unknown DNS response code %q", name)
		}
		p.codes = append(p.codes, code)
	}
	for _, text := range d.Expect {
		p.expect = append(p.expect, canonical(text))
	}
	return p.attempt, nil
}

func (p *dnsProbe) attempt(ctx context.Context) error {
	question := &dns.Msg{Question: []dns.Question{p.question}}
	question.Id, question.RecursionDesired = dns.Id(), true
	text, err := question.Pack()
	if err != nil {
		return fmt.Errorf("%w: make DNS question: %w", ErrUnable, err)
	}
	answer, err := p.ask(ctx, p.transport, question, text)
	if err == nil && answer.Truncated && p.transport == "udp" {
		answer, err = p.ask(ctx, "tcp", question, text)
	}
	if err != nil {
		return err
	}
	return p.judge(answer)
}

// ask makes one exchange.
func (p *dnsProbe) ask(ctx context.Context, transport string, question *dns.Msg, text []byte) (*dns.Msg, error) {
	conn, err := p.dial(ctx, transport, p.to)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	defer limited(ctx, conn)()
	buf := p.shared.datagrams.Get().(*[maxDatagram]byte)
	defer p.shared.datagrams.Put(buf)
	if transport == "tcp" {
		return askStream(conn, question, text, buf[:])
	}
	return askDatagram(conn, question, text, buf[:])
}

// askDatagram leaves aside what does not answer this question: somebody may
// have forged it, without knowing the random identifier.
func askDatagram(conn net.Conn, question *dns.Msg, text, buf []byte) (*dns.Msg, error) {
	if _, err := conn.Write(text); err != nil {
		return nil, fmt.Errorf("send: %w", err)
	}
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return nil, fmt.Errorf("receive: %w", err)
		}
		if answer, err := parseAnswer(buf[:n], question); !errors.Is(err, errUnrelated) {
			return answer, err
		}
	}
}

// askStream puts the length before each message, RFC 1035 section 4.2.2.
func askStream(conn net.Conn, question *dns.Msg, text, buf []byte) (*dns.Msg, error) {
	framed := append(binary.BigEndian.AppendUint16(nil, uint16(len(text))), text...)
	if _, err := conn.Write(framed); err != nil {
		return nil, fmt.Errorf("send: %w", err)
	}
	if _, err := io.ReadFull(conn, buf[:2]); err != nil {
		return nil, fmt.Errorf("receive: %w", err)
	}
	answer := buf[:binary.BigEndian.Uint16(buf)]
	if _, err := io.ReadFull(conn, answer); err != nil {
		return nil, fmt.Errorf("receive: %w", err)
	}
	return parseAnswer(answer, question)
}

// errUnrelated is the error of a message that does not answer the question.
var errUnrelated = errors.New("not an answer to the question")

// parseAnswer reads a message from the network. The identifier is looked at
// first: what has another one is not even worth an error.
func parseAnswer(b []byte, question *dns.Msg) (*dns.Msg, error) {
	if len(b) < 2 || binary.BigEndian.Uint16(b) != question.Id {
		return nil, errUnrelated
	}
	answer := new(dns.Msg)
	if err := answer.Unpack(b); err != nil {
		return nil, fmt.Errorf("read DNS answer: %w", err)
	}
	if !answer.Response {
		return nil, errUnrelated
	}
	// A server may leave the question out of a refusal.
	asked := question.Question[0]
	for _, q := range answer.Question {
		if q.Qtype != asked.Qtype || q.Qclass != asked.Qclass || !strings.EqualFold(q.Name, asked.Name) {
			return nil, errUnrelated
		}
	}
	if len(answer.Question) == 0 && answer.Rcode == dns.RcodeSuccess {
		return nil, errUnrelated
	}
	return answer, nil
}

// judge looks at the response code and the answers.
func (p *dnsProbe) judge(answer *dns.Msg) error {
	if !slices.Contains(p.codes, answer.Rcode) {
		names := make([]string, len(p.codes))
		for i, code := range p.codes {
			names[i] = dns.RcodeToString[code]
		}
		got, ok := dns.RcodeToString[answer.Rcode]
		if !ok {
			got = fmt.Sprint(answer.Rcode)
		}
		return fmt.Errorf("DNS code %s, want %s", got, strings.Join(names, " or "))
	}
	got := make([]string, len(answer.Answer))
	for i, record := range answer.Answer {
		got[i] = canonical(content(record))
	}
	for _, want := range p.expect {
		if !slices.Contains(got, want) {
			return fmt.Errorf("answer %s lacks %s", excerpt([]byte(strings.Join(got, ", "))), want)
		}
	}
	return nil
}

// content returns what a record says: an address, the text of a TXT, else the
// form that it has in a zone file.
func content(record dns.RR) string {
	switch r := record.(type) {
	case *dns.A:
		return r.A.String()
	case *dns.AAAA:
		return r.AAAA.String()
	case *dns.TXT:
		return strings.Join(r.Txt, "")
	}
	return strings.TrimPrefix(record.String(), record.Header().String())
}

// canonical returns an address in its one form, and a name without regard to
// case and to the dot at its end.
func canonical(text string) string {
	if addr, err := netip.ParseAddr(text); err == nil {
		return addr.String()
	}
	return strings.ToLower(strings.TrimSuffix(text, "."))
}
