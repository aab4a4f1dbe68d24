package show

import (
	"fmt"
	"strings"
	"time"

	"weir/controlplane/api"
)

// limitsText says what is kept out of a service; "" if nothing is.
func limitsText(l *api.Limits, acl *api.ACL) string {
	var parts []string
	add := func(n int, format string, args ...any) {
		if n > 0 {
			parts = append(parts, fmt.Sprintf(format, append([]any{n}, args...)...))
		}
	}
	if l != nil {
		add(l.NewFlows, "%d new flows/s")
		add(l.Packets, "%d packets/s")
		add(l.NewFlowsPerSrc, "%d new flows/s from each /%d or IPv6 /%d", l.Prefix, l.Prefix6)
		add(l.PacketsPerSrc, "%d packets/s from each /%d or IPv6 /%d", l.Prefix, l.Prefix6)
	}
	text := strings.Join(parts, ", ")
	if text != "" {
		text = "lets in " + text
	}
	if acl != nil {
		if text != "" {
			text += "; "
		}
		text += fmt.Sprintf("access list of %d allowed, %d denied", acl.Allow, acl.Deny)
	}
	return text
}

func healthText(h *api.Health) string {
	if h == nil {
		return "not checked"
	}
	if h.Kind == "" {
		return h.State
	}
	port := ""
	if h.Port != 0 {
		port = fmt.Sprintf(" port %d", h.Port)
	}
	return fmt.Sprintf("%s (%s to %s%s)", h.State, h.Kind, h.Target, port)
}

// weightText says what counts of a weight, if that is not all or nothing.
func weightText(b *api.Backend) string {
	if b.WeightUntil.IsZero() {
		return fmt.Sprint(b.Weight)
	}
	end := "all"
	if b.Drained {
		end = "none"
	}
	return fmt.Sprintf("%g of %d (%s in %s)", b.WeightNow, b.Weight, end, max(time.Until(b.WeightUntil), 0).Round(time.Second))
}

func pathText(p *api.Path) string {
	if p == nil {
		return "not known"
	}
	text := p.Interface
	if p.VLAN != 0 {
		text += fmt.Sprintf(" vlan %d", p.VLAN)
	}
	if p.Gateway.IsValid() {
		text += " via " + p.Gateway.String()
	}
	text += " " + p.DstMAC
	if p.MTUSource != "" && p.MTUSource != "link" {
		text += fmt.Sprintf(", mtu %d %s", p.MTU, p.MTUSource)
	}
	return text
}

// tableText says what a flow table had to give up.
func tableText(w *api.Worker) string {
	text := counts(
		count{w.FlowsEvicted, "flows evicted"}, count{w.Untrusted, "untrusted flows evicted"}, count{w.Refused, "new flows without room"},
		count{w.Unrecorded, "above new_rate"}, count{w.NATTakenOver, "SNAT ports taken over"})
	if text != "" {
		text += fmt.Sprintf("; table of %d", w.FlowCapacity)
	}
	return text
}

// doorText says what a worker kept out.
func doorText(w *api.Worker) string {
	return counts(
		count{w.Drops["denied"], "denied by access lists"}, count{w.Drops["service_limit"], "above a service's limit"},
		count{w.Drops["source_limit"], "above the limit per source"}, count{w.Drops["ports_exhausted"], "without a free SNAT port"})
}

type count struct {
	n    uint64
	what string
}

// counts lists those that are not zero.
func counts(all ...count) string {
	var parts []string
	for _, c := range all {
		if c.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", c.n, c.what))
		}
	}
	return strings.Join(parts, ", ")
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

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
