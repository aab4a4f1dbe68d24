// Package show renders what the api says as tables for people.
//
// The problem it solves: an engineer reads these over a slow terminal, in the
// middle of something. So each noun is one aligned table that fits the width of
// a terminal, IPv6 addresses included: facts as long as a sentence (why a
// backend is not used) are on lines of their own below the row. Whatever is
// wrong is in the table and not behind another command; what is only counted,
// or is as it was configured, is left to -o json and the metrics.
package show

import (
	"bytes"
	"context"
	"fmt"
	"io"
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
		noun("nat", "SNAT addresses and how many of their ports are in use", natTable),
		noun("interfaces", "interfaces: driver, state, and why nothing better works", interfacesTable),
		noun("announcements", "addresses: where each is announced, or why it is not", announcementsTable),
		noun("pools", "pools of addresses: how full they are, and who has which", poolsTable),
		noun("members", "nodes of the cluster", membersTable),
		noun("peers", "BGP sessions", peersTable),
	}
}

// Show asks the running weir for the noun and writes it to w. query is appended
// to the request ("limit=10"); it may be empty.
func (n Noun) Show(ctx context.Context, c *api.Client, w io.Writer, query string, asJSON bool) error {
	return n.show(ctx, c, w, query, asJSON)
}

func noun[T any](name, usage string, table func(T) []Row) Noun {
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
			return JSON(w, v)
		}
		return Write(w, table(v))
	}
	return Noun{name, usage, show}
}

// CheckService returns an error unless the running weir has a service of this
// name, so that a misspelt one does not look like one without flows.
func CheckService(ctx context.Context, c *api.Client, name string) error {
	var all []api.Service
	if err := c.Get(ctx, "services", &all); err != nil {
		return err
	}
	var names []string
	for _, s := range all {
		if s.Name == name {
			return nil
		}
		names = append(names, s.Name)
	}
	return fmt.Errorf("no such service: %q; there are %s", name, dash(strings.Join(names, ", ")))
}

// Row is a line of cells, and notes to be read below it.
type Row struct {
	Cells []string
	Notes []string // empty ones are left out
}

const (
	lineWidth  = 100 // columns that a table should need
	noteIndent = "    "
)

// Write writes rows, the first of which is the heading, in aligned columns. A
// cell is put on one line, a note on indented lines of its own, and no line ends
// in blanks.
func Write(w io.Writer, rows []Row) error {
	var aligned, out bytes.Buffer
	t := tabwriter.NewWriter(&aligned, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		for _, cell := range row.Cells {
			fmt.Fprint(t, oneLine(cell), "\t") // every cell ends in a tab, or columns would not go through
		}
		fmt.Fprintln(t)
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("align table: %w", err)
	}
	for _, row := range rows {
		line, err := aligned.ReadString('\n')
		if err != nil {
			return fmt.Errorf("align table: %w", err)
		}
		fmt.Fprintln(&out, strings.TrimRight(line, " \n"))
		for _, note := range row.Notes {
			writeNote(&out, note)
		}
	}
	if _, err := out.WriteTo(w); err != nil {
		return fmt.Errorf("write table: %w", err)
	}
	return nil
}

// writeNote writes a note, broken between words where it is too long.
func writeNote(out *bytes.Buffer, note string) {
	column := 0
	for _, word := range strings.Fields(oneLine(note)) {
		switch {
		case column == 0:
			out.WriteString(noteIndent)
			column = len(noteIndent)
		case column+1+len(word) > lineWidth:
			out.WriteString("\n" + noteIndent)
			column = len(noteIndent)
		default:
			out.WriteByte(' ')
			column++
		}
		out.WriteString(word)
		column += len(word)
	}
	if column > 0 {
		out.WriteByte('\n')
	}
}

// oneLine makes of an error in several lines one that stands in a cell.
func oneLine(text string) string {
	return strings.NewReplacer("\n", "; ", "\t", " ").Replace(text)
}

func servicesTable(all []api.Service) []Row {
	rows := []Row{{Cells: []string{"SERVICE", "MODE", "BACKENDS", "FLOWS", "NEW FLOWS", "PACKETS", "BYTES"}}}
	for _, s := range all {
		mode := s.Mode
		if s.ClientAddress == "keep" {
			mode += " (keep)"
		}
		rows = append(rows, Row{[]string{
			s.Name, mode, fmt.Sprintf("%d/%d", s.Usable, s.Backends),
			fmt.Sprint(s.Flows), fmt.Sprint(s.NewFlows), fmt.Sprint(s.Packets), Bytes(s.Bytes),
		}, []string{
			list("VIP", texts(s.Addresses)) + "; " + list("ports", s.Ports),
			limitsText(s.Limits, s.ACL),
		}})
	}
	return rows
}

func backendsTable(all []api.Backend) []Row {
	rows := []Row{{Cells: []string{"SERVICE", "BACKEND", "STATUS", "SHARE", "FLOWS", "PACKETS", "BYTES"}}}
	for _, b := range all {
		rows = append(rows, Row{[]string{
			b.Service, b.Address.String(), b.Status, fmt.Sprintf("%.1f%%", 100*b.Share),
			fmt.Sprint(b.Flows), fmt.Sprint(b.Packets), Bytes(b.Bytes),
		}, []string{
			b.Reason,
			fmt.Sprintf("weight %s, health %s, path %s", weightText(&b), healthText(b.Health), pathText(b.Path)),
		}})
	}
	return rows
}

func flowsTable(all api.Flows) []Row {
	rows := []Row{{Cells: []string{"PROTO", "CLIENT", "VIP", "SERVICE", "BACKEND", "STATE", "IDLE", "WORKER"}}}
	for _, f := range all.Flows {
		backend := "(gone)"
		if f.Backend.IsValid() {
			backend = f.Backend.String()
		}
		by := ""
		if f.SNAT.IsValid() {
			by = "the backend sees " + f.SNAT.String()
		}
		rows = append(rows, Row{[]string{
			f.Protocol, f.Client.String(), f.VIP.String(), f.Service, backend, f.State,
			(time.Duration(f.IdleMS) * time.Millisecond).Round(100 * time.Millisecond).String(),
			fmt.Sprintf("%s/%d", f.Interface, f.Worker),
		}, []string{by}})
	}
	if all.Truncated {
		rows = append(rows, Row{Cells: []string{"...", "more; raise --limit"}})
	}
	return rows
}

func workersTable(all []api.Worker) []Row {
	rows := []Row{{Cells: []string{"WORKER", "CPU", "RECEIVED", "SENT", "HANDED OVER", "DROPPED", "KERNEL DROPPED", "INVALID", "FLOWS"}}}
	for _, w := range all {
		cpu, full, notes := "-", "", []string{w.Error}
		if w.CPU >= 0 {
			cpu = fmt.Sprint(w.CPU)
		}
		if w.FlowCapacity > 0 {
			full = fmt.Sprintf(" (%d%%)", 100*w.Flows/w.FlowCapacity)
		}
		notes = append(notes, tableText(&w), doorText(&w), counts(count{w.Spread.Packets, "given to other nodes"}))
		rows = append(rows, Row{[]string{
			fmt.Sprintf("%s/%d", w.Interface, w.Queue), cpu,
			fmt.Sprint(w.Received.Packets), fmt.Sprint(w.Transmitted.Packets), fmt.Sprint(w.HandedOver.Packets),
			fmt.Sprint(w.Dropped), fmt.Sprint(w.KernelDropped), fmt.Sprint(w.KernelInvalid),
			fmt.Sprint(w.Flows) + full,
		}, notes})
	}
	return rows
}

func natTable(all api.NAT) []Row {
	rows := []Row{{Cells: []string{"SNAT ADDRESS", "OWNER", "PORTS", "BLOCKS IN USE"}}}
	for _, a := range all.Addresses {
		owner := "weir"
		if a.Shared {
			owner = "the box"
		}
		rows = append(rows, Row{Cells: []string{a.Address.String(), owner, a.Ports, fmt.Sprintf("%d of %d", a.InUse, a.Blocks)}})
	}
	if len(all.Addresses) > 0 {
		last := &rows[len(rows)-1]
		last.Notes = []string{"", fmt.Sprintf("%d flows have a port; %d were over and lost theirs; %d new flows found none", all.Flows, all.TakenOver, all.Exhausted)}
	}
	return rows
}

func dropsTable(all []api.Drop) []Row {
	rows := []Row{{Cells: []string{"REASON", "PACKETS", "MEANING"}}}
	for _, d := range all {
		rows = append(rows, Row{Cells: []string{d.Reason, fmt.Sprint(d.Packets), d.Help}})
	}
	return rows
}

func interfacesTable(all []api.Interface) []Row {
	rows := []Row{{Cells: []string{"INTERFACE", "STATE", "DRIVER", "MODE", "QUEUES", "MAC", "MTU"}}}
	for _, i := range all {
		state, notes := "up", slices.Clone(i.Reasons)
		switch {
		case !i.Up:
			state = "down"
		case i.Stuck:
			state = "stuck"
		}
		if i.Error != "" {
			state, notes = "failed", append([]string{i.Error}, notes...)
		}
		rows = append(rows, Row{[]string{
			i.Name, state, dash(i.Driver), dash(i.Mode), fmt.Sprint(i.Workers), i.MAC, fmt.Sprint(i.MTU),
		}, notes})
	}
	return rows
}
