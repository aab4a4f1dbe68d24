package show

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"math/big"
	"strings"
	"time"

	"weir/controlplane/api"
)

func announcementsTable(all []api.Announcement) []Row {
	rows := []Row{{Cells: []string{"ADDRESS", "BY", "TO", "STATE", "SINCE", "SENT"}}}
	for _, a := range all {
		rows = append(rows, Row{
			[]string{a.Address, a.Protocol, dash(a.To), a.State, ago(a.Since), fmt.Sprint(a.Sent)},
			[]string{note("owner", a.Owner), a.Error},
		})
	}
	return rows
}

func poolsTable(all []api.Pool) []Row {
	rows := []Row{{Cells: []string{"POOL", "FAMILY", "SIZE", "USED", "FREE", "ANNOUNCED BY", "AUTOMATIC"}}}
	for _, p := range all {
		auto := "no"
		if p.AutoAssign {
			auto = "yes"
		}
		var of []Row
		add := func(family string, c *api.PoolCount) {
			if c != nil {
				of = append(of, Row{Cells: []string{
					p.Name, family, Amount(c.Size), Amount(c.Used), Amount(c.Free), dash(strings.Join(p.Announce, ", ")), auto,
				}})
			}
		}
		add("IPv4", p.IPv4)
		add("IPv6", p.IPv6)
		if len(of) == 0 {
			add("-", &api.PoolCount{Size: new(big.Int), Used: new(big.Int), Free: new(big.Int)})
		}
		last := &of[len(of)-1]
		for _, h := range p.Held {
			last.Notes = append(last.Notes, h.Address.String()+" "+strings.Join(h.Services, ", "))
		}
		rows = append(rows, of...)
	}
	return rows
}

func membersTable(all []api.Member) []Row {
	rows := []Row{{Cells: []string{"NODE", "ADDRESS", "STATE", "SINCE", "VIPS", "VERSION"}}}
	for _, m := range all {
		name, address, state := m.Name, "-", "dead"
		if m.Self {
			name += " (this)"
		}
		if m.Address.IsValid() {
			address = m.Address.String()
		}
		if m.Alive {
			state = "alive"
		}
		rows = append(rows, Row{[]string{name, address, state, ago(m.Since), fmt.Sprint(m.Announces), dash(m.Version)}, []string{m.Error}})
	}
	return rows
}

func peersTable(all []api.Peer) []Row {
	rows := []Row{{Cells: []string{"PEER", "ASN", "STATE", "SINCE", "PREFIXES", "FLAPS"}}}
	for _, p := range all {
		address, restart := p.Address.String(), ""
		if address == p.Name {
			address = ""
		}
		if p.GracefulRestart {
			restart = "takes part in graceful restart"
		}
		rows = append(rows, Row{
			[]string{p.Name, fmt.Sprint(p.ASN), p.State, ago(p.Since), fmt.Sprint(p.Prefixes), fmt.Sprint(p.Flaps)},
			[]string{note("address", address), restart, note("last error:", p.LastError)},
		})
	}
	return rows
}

// note is a word and what it is about; "" if there is nothing.
func note(word, about string) string {
	if about == "" {
		return ""
	}
	return word + " " + about
}

// ago says how long ago something was, in the two largest units.
func ago(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	d := max(time.Since(t), 0)
	const day = 24 * time.Hour
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds ago", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm%ds ago", d/time.Minute, d%time.Minute/time.Second)
	case d < day:
		return fmt.Sprintf("%dh%dm ago", d/time.Hour, d%time.Hour/time.Minute)
	}
	return fmt.Sprintf("%dd%dh ago", d/day, d%day/time.Hour)
}

// Amount writes a number of addresses: with all of its digits while somebody
// might count them, and then as a power of two, about, as in a /64.
func Amount(n *big.Int) string {
	if n.BitLen() <= 32 {
		return n.String()
	}
	f, _ := n.Float64()
	exponent := math.Log2(f)
	if rounded := math.Round(exponent); math.Abs(exponent-rounded) < 0.005 {
		return fmt.Sprintf("2^%.0f", rounded)
	}
	return fmt.Sprintf("2^%.2f", exponent)
}

// verdict is the word for a verdict; the one that matters stands out.
func verdict(v api.Verdict) string {
	switch v {
	case api.DiagnosisFail:
		return "FAIL"
	case api.DiagnosisSkipped:
		return "skip"
	}
	return string(v)
}

// Diagnosis writes a diagnosis as a tree, and below what is wrong what to do about
// it, as it is.
func Diagnosis(w io.Writer, d *api.Diagnosis) error {
	var out bytes.Buffer
	branch(&out, d, 0)
	if _, err := out.WriteTo(w); err != nil {
		return fmt.Errorf("write diagnosis: %w", err)
	}
	return nil
}

func branch(out *bytes.Buffer, d *api.Diagnosis, depth int) {
	head := fmt.Sprintf("%s%-4s ", strings.Repeat("  ", depth), verdict(d.Status))
	text := d.Subject
	if d.Text != "" {
		text += ": " + d.Text
	}
	hang(out, head, text)
	if d.Fix != "" { // commands, to be copied: not broken
		label := "fix: "
		for line := range strings.Lines(d.Fix) {
			fmt.Fprintf(out, "%*s%s%s\n", len(head), "", label, strings.TrimRight(line, "\n"))
			label = "     "
		}
	}
	for i := range d.Children {
		branch(out, &d.Children[i], depth+1)
	}
}

// hang writes text behind a head, and what does not fit a line below its
// beginning.
func hang(out *bytes.Buffer, head, text string) {
	out.WriteString(head)
	column := len(head)
	for i, word := range strings.Fields(oneLine(text)) {
		switch {
		case i == 0:
		case column+1+len(word) > lineWidth:
			out.WriteString("\n" + strings.Repeat(" ", len(head)))
			column = len(head)
		default:
			out.WriteByte(' ')
			column++
		}
		out.WriteString(word)
		column += len(word)
	}
	out.WriteByte('\n')
}
