package show

import (
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"strings"

	"weir/controlplane/api"
)

// JSON writes an answer for programs.
func JSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		return fmt.Errorf("write answer: %w", err)
	}
	return nil
}

// mostMoves is how many backends whose slots move are named for a service; the
// rest is in the JSON.
const mostMoves = 8

// Plan writes what a configuration would change.
func Plan(w io.Writer, p *api.Plan) error {
	rows := []Row{{Cells: []string{"SERVICE", "CHANGE", "SLOTS MOVED", "FLOWS", "BREAK"}}}
	unchanged := 0
	for i := range p.Services {
		s := &p.Services[i]
		if s.Change == "unchanged" && s.Moved == 0 && s.Breaks == 0 {
			unchanged++
			continue
		}
		moved := percent(s.Moved)
		if s.Change == "added" || s.Change == "removed" {
			moved = "-"
		}
		rows = append(rows, Row{
			[]string{s.Name, s.Change, moved, fmt.Sprint(s.Flows), fmt.Sprint(s.Breaks)},
			[]string{list("keys", s.Keys), list("backends", backendTexts(s.Backends)), list("slots", moveTexts(s.Slots))},
		})
	}
	rows = append(rows, Row{[]string{"all", "", "", fmt.Sprint(p.Flows), fmt.Sprint(p.Breaks)}, planNotes(p, unchanged)})
	return Write(w, rows)
}

func planNotes(p *api.Plan, unchanged int) []string {
	notes := []string{
		list("VIPs added", texts(p.VIPsAdded)), list("VIPs removed", texts(p.VIPsRemoved)), list("other keys that change", p.Sections),
	}
	switch {
	case unchanged == len(p.Services) && len(p.Sections) == 0:
		notes = append(notes, "nothing would change")
	case unchanged > 0:
		notes = append(notes, fmt.Sprintf("services that stay as they are: %d", unchanged))
	}
	if len(p.Restart) > 0 {
		notes = append(notes, fmt.Sprintf("needs a restart: %s; weir reload would refuse the file, and a restart forgets all %d flows", strings.Join(p.Restart, ", "), p.Flows))
	}
	return notes
}

func backendTexts(all []api.PlannedBackend) []string {
	var out []string
	for _, b := range all {
		if len(b.Keys) > 0 {
			out = append(out, fmt.Sprintf("%s %s", b.Address, strings.Join(b.Keys, " and ")))
		} else {
			out = append(out, fmt.Sprintf("%s %s", b.Address, b.Change))
		}
	}
	return out
}

func moveTexts(all []api.SlotMove) []string {
	var out []string
	for _, m := range all {
		if len(out) == mostMoves {
			return append(out, fmt.Sprintf("and %d more backends", len(all)-mostMoves))
		}
		who := "nobody"
		if m.Backend.IsValid() {
			who = m.Backend.String()
		}
		text := fmt.Sprintf("%s %s to %s", who, percent(m.Before), percent(m.After))
		if m.Leaves > 0 && m.Comes > 0 {
			text += fmt.Sprintf(" (%s leave, %s come)", percent(m.Leaves), percent(m.Comes))
		}
		out = append(out, text)
	}
	return out
}

// list is a note of what there is several of; "" if there is nothing.
func list(what string, all []string) string {
	if len(all) == 0 {
		return ""
	}
	return what + ": " + strings.Join(all, ", ")
}

func texts(all []netip.Addr) []string {
	var out []string
	for _, a := range all {
		out = append(out, a.String())
	}
	return out
}

func percent(part float64) string { return fmt.Sprintf("%.1f%%", 100*part) }

// Ordered writes what has become of an order to drain a backend, or to undrain
// it, a line for each service.
func Ordered(w io.Writer, all []api.Backend) error {
	for i := range all {
		b := &all[i]
		flows := fmt.Sprintf("%d live flows stay", b.Flows)
		text := ""
		switch {
		case b.Drained && !b.WeightUntil.IsZero():
			text = fmt.Sprintf("drains, with weight %s; %s until they end", weightText(b), flows)
		case b.Drained && b.Status == "draining":
			text = fmt.Sprintf("gets no new flows; %s until they end", flows)
		case b.Drained:
			text = fmt.Sprintf("will get no new flows; now it is %s", because(b))
		case b.Status == "up" && !b.WeightUntil.IsZero():
			text = fmt.Sprintf("gets new flows again, with weight %s; %s", weightText(b), flows)
		case b.Status == "up":
			text = fmt.Sprintf("gets new flows, with all of its weight of %d; %s", b.Weight, flows)
		default:
			text = fmt.Sprintf("is not drained by command, but %s", because(b))
		}
		if _, err := fmt.Fprintf(w, "%s: %s %s\n", b.Service, b.Address, text); err != nil {
			return fmt.Errorf("write answer: %w", err)
		}
	}
	return nil
}

func because(b *api.Backend) string {
	if b.Reason == "" {
		return b.Status
	}
	return b.Status + ": " + oneLine(b.Reason)
}
