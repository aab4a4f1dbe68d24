// Package show renders what the api says as tables for people.
//
// The problem it solves: an engineer reads these over a slow terminal, in the
// middle of something. So each noun is one aligned table, widest facts last,
// and whatever is wrong is in the table and not behind another command.
package show

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"weir/controlplane/api"
)

// Noun is something that can be shown.
type Noun struct {
	Name  string
	Usage string
	show  func(ctx context.Context, c *api.Client, w io.Writer, query string, asJSON bool) error
}

// Nouns returns all nouns, in the order in which help lists them.
func Nouns() []Noun {
	return []Noun{
		noun("services", "services, their VIPs, and what they are sent", servicesTable),
		noun("backends", "backends per service: state, path, share and load", backendsTable),
		noun("flows", "flows in the flow tables", flowsTable),
		noun("workers", "workers: what each received, sent and dropped", workersTable),
		noun("drops", "dropped frames by reason", dropsTable),
		noun("interfaces", "interfaces: driver, state, and why nothing better works", interfacesTable),
		noun("announcements", "VIPs announced on links", announcementsTable),
	}
}

// Show asks the running weir for the noun and writes it to w. query is appended
// to the request ("limit=10"); it may be empty.
func (n Noun) Show(ctx context.Context, c *api.Client, w io.Writer, query string, asJSON bool) error {
	return n.show(ctx, c, w, query, asJSON)
}

func noun[T any](name, usage string, table func(T) [][]string) Noun {
	show := func(ctx context.Context, c *api.Client, w io.Writer, query string, asJSON bool) error {
		var v T
		what := name
		if query != "" {
			what += "?" + query
		}
		if err := c.Get(ctx, what, &v); err != nil {
			return err
		}
		if asJSON {
			e := json.NewEncoder(w)
			e.SetIndent("", "  ")
			return e.Encode(v)
		}
		return Write(w, table(v))
	}
	return Noun{name, usage, show}
}

// Write writes rows, the first of which is the heading, in aligned columns. A
// cell is put on one line, and no line ends in blanks.
func Write(w io.Writer, rows [][]string) error {
	var aligned bytes.Buffer
	t := tabwriter.NewWriter(&aligned, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		for _, cell := range row {
			fmt.Fprint(t, oneLine(cell), "\t") // every cell ends in a tab, or columns would not go through
		}
		fmt.Fprintln(t)
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("align table: %w", err)
	}
	for line := range strings.Lines(aligned.String()) {
		if _, err := fmt.Fprintln(w, strings.TrimRight(line, " \n")); err != nil {
			return fmt.Errorf("write table: %w", err)
		}
	}
	return nil
}

// oneLine makes of an error in several lines one that stands in a cell.
func oneLine(text string) string {
	return strings.NewReplacer("\n", "; ", "\t", " ").Replace(text)
}

func servicesTable(all []api.Service) [][]string {
	rows := [][]string{{"SERVICE", "MODE", "VIP", "PORTS", "BACKENDS", "FLOWS", "NEW FLOWS", "PACKETS", "BYTES"}}
	for _, s := range all {
		rows = append(rows, []string{
			s.Name, s.Mode, join(s.Addresses), strings.Join(s.Ports, ","),
			fmt.Sprintf("%d/%d", s.Usable, s.Backends),
			fmt.Sprint(s.Flows), fmt.Sprint(s.NewFlows), fmt.Sprint(s.Packets), Bytes(s.Bytes),
		})
	}
	return rows
}

func backendsTable(all []api.Backend) [][]string {
	rows := [][]string{{"SERVICE", "BACKEND", "STATUS", "HEALTH", "WEIGHT", "SHARE", "FLOWS", "NEW FLOWS", "PACKETS", "BYTES", "PATH", "REASON"}}
	for _, b := range all {
		rows = append(rows, []string{
			b.Service, b.Address.String(), b.Status, healthText(b.Health),
			fmt.Sprint(b.Weight), fmt.Sprintf("%.1f%%", 100*b.Share),
			fmt.Sprint(b.Flows), fmt.Sprint(b.NewFlows), fmt.Sprint(b.Packets), Bytes(b.Bytes),
			pathText(b.Path), b.Reason,
		})
	}
	return rows
}

func healthText(h *api.Health) string {
	if h == nil {
		return "-"
	}
	return h.State
}

func pathText(p *api.Path) string {
	if p == nil {
		return "-"
	}
	text := p.Interface
	if p.VLAN != 0 {
		text += fmt.Sprintf(" vlan %d", p.VLAN)
	}
	if p.Gateway.IsValid() {
		text += " via " + p.Gateway.String()
	}
	return text + " " + p.DstMAC
}

func flowsTable(all api.Flows) [][]string {
	rows := [][]string{{"PROTO", "CLIENT", "VIP", "SERVICE", "BACKEND", "STATE", "IDLE", "WORKER"}}
	for _, f := range all.Flows {
		backend := "(gone)"
		if f.Backend.IsValid() {
			backend = f.Backend.String()
		}
		rows = append(rows, []string{
			f.Protocol, f.Client.String(), f.VIP.String(), f.Service, backend, f.State,
			(time.Duration(f.IdleMS) * time.Millisecond).Round(100 * time.Millisecond).String(),
			fmt.Sprintf("%s/%d", f.Interface, f.Worker),
		})
	}
	if all.Truncated {
		rows = append(rows, []string{"...", "more; raise --limit"})
	}
	return rows
}

func workersTable(all []api.Worker) [][]string {
	rows := [][]string{{"WORKER", "CPU", "RECEIVED", "SENT", "HANDED OVER", "DROPPED", "KERNEL DROPPED", "FLOWS", "EVICTED", "ARP/NDP/PING", "ERROR"}}
	for _, w := range all {
		cpu := "-"
		if w.CPU >= 0 {
			cpu = fmt.Sprint(w.CPU)
		}
		rows = append(rows, []string{
			fmt.Sprintf("%s/%d", w.Interface, w.Queue), cpu,
			fmt.Sprint(w.Received.Packets), fmt.Sprint(w.Transmitted.Packets), fmt.Sprint(w.HandedOver.Packets),
			fmt.Sprint(w.Dropped), fmt.Sprint(w.KernelDropped + w.KernelInvalid),
			fmt.Sprintf("%d of %d", w.Flows, w.FlowCapacity), fmt.Sprint(w.FlowsEvicted),
			fmt.Sprintf("%d/%d/%d", w.ARPReplies, w.NDPReplies, w.EchoReplies), w.Error,
		})
	}
	return rows
}

func dropsTable(all []api.Drop) [][]string {
	rows := [][]string{{"REASON", "PACKETS", "MEANING"}}
	for _, d := range all {
		rows = append(rows, []string{d.Reason, fmt.Sprint(d.Packets), d.Help})
	}
	return rows
}

func interfacesTable(all []api.Interface) [][]string {
	rows := [][]string{{"INTERFACE", "STATE", "DRIVER", "MODE", "QUEUES", "MAC", "MTU", "NOTES"}}
	for _, i := range all {
		state, notes := "up", slices.Clone(i.Reasons)
		if !i.Up {
			state = "down"
		}
		if i.Error != "" {
			state, notes = "failed", append([]string{i.Error}, notes...)
		}
		rows = append(rows, []string{
			i.Name, state, dash(i.Driver), dash(i.Mode), fmt.Sprint(i.Workers), i.MAC, fmt.Sprint(i.MTU),
			strings.Join(notes, "; "),
		})
	}
	return rows
}

func announcementsTable(all []api.Announcement) [][]string {
	rows := [][]string{{"VIP", "INTERFACE", "BY", "SENT", "LAST", "ERROR"}}
	for _, a := range all {
		last := "never"
		if !a.Last.IsZero() {
			last = time.Since(a.Last).Round(time.Second).String() + " ago"
		}
		rows = append(rows, []string{a.Address.String(), a.Interface, a.Protocol, fmt.Sprint(a.Sent), last, a.Error})
	}
	return rows
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func join(all []netip.Addr) string {
	var texts []string
	for _, a := range all {
		texts = append(texts, a.String())
	}
	return strings.Join(texts, ",")
}

// Bytes writes a number of bytes with a binary prefix and about three digits.
func Bytes(n uint64) string {
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	v, prefix := float64(n)/1024, 0
	for v >= 1000 && prefix < 4 {
		v /= 1024
		prefix++
	}
	return fmt.Sprintf("%.1f %ciB", v, "KMGTP"[prefix])
}
