package api

import (
	"context"
	"net/http"
	"slices"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"weir/controlplane/announce"
	"weir/controlplane/health"
	"weir/controlplane/reconcile"
	"weir/dataplane/engine"
	"weir/dataplane/stats"
)

// metricsHandler serves the Prometheus exposition format.
func metricsHandler(a Appliance) http.Handler {
	return promhttp.HandlerFor(newRegistry(a), promhttp.HandlerOpts{})
}

func newRegistry(a Appliance) *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(
		collector{a},
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return r
}

// collector asks the appliance at each scrape; it keeps nothing.
type collector struct{ appliance Appliance }

// Describe sends nothing: which metrics there are depends on the configuration.
func (collector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), askTimeout)
	defer cancel()
	m := emitter{ch}
	status := c.appliance.Status(ctx)
	// A sum that leaves out a worker would go back, which Prometheus takes for a
	// restart, and count everything again when the worker answers.
	complete := !slices.ContainsFunc(status, func(s engine.WorkerStatus) bool { return s.Err != nil })
	view, sum := c.appliance.View(), totals(status)
	for _, b := range backends(view, sum) {
		l := labels{"service", b.Service, "backend", b.Address.String()}
		if complete {
			m.counter("weir_backend_packets_total", "Packets forwarded to the backend.", float64(b.Packets), l)
			m.counter("weir_backend_bytes_total", "Bytes forwarded to the backend, Ethernet headers included.", float64(b.Bytes), l)
			m.counter("weir_backend_answered_packets_total", "Packets from the backend to clients, under NAT.", float64(b.Answers.Packets), l)
			m.counter("weir_backend_answered_bytes_total", "Bytes from the backend to clients, under NAT.", float64(b.Answers.Bytes), l)
			m.counter("weir_backend_flows_total", "Flows decided for the backend.", float64(b.NewFlows), l)
			m.gauge("weir_backend_flows", "Flows of the backend in the flow tables.", float64(b.Flows), l)
			m.counter("weir_backend_tcp_opened_total", "TCP connections that were opened towards the backend.", float64(b.TCP.Opened), l)
			m.counter("weir_backend_tcp_established_total", "Of those, the ones that the backend answered.", float64(b.TCP.Established), l)
			m.counter("weir_backend_tcp_retries_total", "SYNs that clients sent again.", float64(b.TCP.Retries), l)
			m.counter("weir_backend_tcp_resets_total", "TCP connections that the backend reset, under NAT.", float64(b.TCP.Resets), l)
		}
		m.health(b.Health, l)
		m.gauge("weir_backend_up", "1 if the backend gets new flows.", truth(b.Status == "up"), l)
		m.gauge("weir_backend_share", "The backend's part of new flows, 0 to 1.", b.Share, l)
		m.gauge("weir_backend_weight", "What counts of the backend's weight at the moment.", b.WeightNow, l)
		if b.Path != nil {
			m.gauge("weir_backend_path_mtu_bytes", "Longest IP packet that fits the way to the backend.", float64(b.Path.MTU), l)
		}
	}
	for _, w := range workers(status) {
		m.worker(&w)
	}
	for _, i := range interfaces(c.appliance.Interfaces()) {
		l := labels{"interface", i.Name}
		m.gauge("weir_interface_up", "1 if the interface is up and worked.", truth(i.Up && !i.Stuck && i.Error == ""), l)
	}
	for _, a := range natOf(view, c.appliance.NATSpace(), sum).Addresses {
		l := labels{"address", a.Address.String()}
		m.gauge("weir_nat_blocks", "Blocks of 64 ports of the SNAT address.", float64(a.Blocks), l)
		m.gauge("weir_nat_blocks_in_use", "Blocks of ports that a worker has.", float64(a.InUse), l)
	}
	m.network(c.appliance, view)
	m.gauge("weir_snapshot_generation", "Number of the snapshot in force.", float64(view.Generation), nil)
}

// emitter writes metrics to a scrape.
type emitter struct{ ch chan<- prometheus.Metric }

// labels are name and value in turn.
type labels []string

func (l labels) with(more ...string) labels { return append(l[:len(l):len(l)], more...) }

func (m emitter) emit(kind prometheus.ValueType, name, help string, v float64, l labels) {
	var names, values []string
	for i := 0; i < len(l); i += 2 {
		names, values = append(names, l[i]), append(values, l[i+1])
	}
	m.ch <- prometheus.MustNewConstMetric(prometheus.NewDesc(name, help, names, nil), kind, v, values...)
}

func (m emitter) counter(name, help string, v float64, l labels) {
	m.emit(prometheus.CounterValue, name, help, v, l)
}

func (m emitter) gauge(name, help string, v float64, l labels) {
	m.emit(prometheus.GaugeValue, name, help, v, l)
}

// health writes what a check says; nothing while it says nothing.
func (m emitter) health(h *Health, l labels) {
	if h == nil || h.State == health.Unknown.String() {
		return
	}
	l = l.with("kind", h.Kind)
	m.gauge("weir_backend_health_up", "1 if the backend's check says that it is up; absent while it says nothing.",
		truth(h.State == health.Up.String()), l)
	m.gauge("weir_backend_health_since_timestamp_seconds", "When it began to say so.", float64(h.Since.UnixMilli())/1000, l)
	m.gauge("weir_backend_health_probe_seconds", "How long the latest probe took.", h.LastMS/1000, l)
}

func (m emitter) worker(w *Worker) {
	l := labels{"interface", w.Interface, "queue", strconv.Itoa(w.Queue)}
	m.gauge("weir_worker_up", "1 if the worker answers.", truth(w.Error == ""), l)
	if w.Error != "" {
		return
	}
	m.counter("weir_worker_received_packets_total", "Packets received.", float64(w.Received.Packets), l)
	m.counter("weir_worker_received_bytes_total", "Bytes received.", float64(w.Received.Bytes), l)
	m.counter("weir_worker_transmitted_packets_total", "Packets sent.", float64(w.Transmitted.Packets), l)
	m.counter("weir_worker_transmitted_bytes_total", "Bytes sent.", float64(w.Transmitted.Bytes), l)
	m.counter("weir_worker_handed_over_packets_total", "Packets handed to a worker of another interface for sending.",
		float64(w.HandedOver.Packets), l)
	m.counter("weir_worker_spread_packets_total", "Packets given to other nodes that an address is spread over.", float64(w.Spread.Packets), l)
	for r := stats.ReasonNone + 1; r < stats.NumReasons; r++ {
		m.counter("weir_worker_dropped_packets_total", "Packets dropped, by reason.",
			float64(w.Drops[r.String()]), l.with("reason", r.String()))
	}
	m.counter("weir_worker_kernel_dropped_packets_total", "Packets the kernel had no room for before the worker.",
		float64(w.KernelDropped), l)
	m.counter("weir_worker_kernel_invalid_packets_total", "Packets before the worker that did not fit a frame.",
		float64(w.KernelInvalid), l)
	for kind, n := range map[string]uint64{
		"arp": w.ARPReplies, "ndp": w.NDPReplies, "echo": w.EchoReplies, "too_big": w.TooBigReplies, "reject": w.Rejects,
	} {
		m.counter("weir_worker_replies_total", "Packets answered by weir itself.", float64(n), l.with("kind", kind))
	}
	m.counter("weir_worker_errors_relayed_total", "ICMP errors given to the backend or client they are about.", float64(w.Relayed), l)
	m.counter("weir_worker_path_mtu_learned_total", "Messages that a packet of weir's own to a backend was too big.", float64(w.TooBigLearned), l)
	m.counter("weir_worker_fragmented_packets_total", "Packets taken apart to fit the way to a backend or client.", float64(w.Fragmented), l)
	m.counter("weir_worker_fragments_held_total", "Fragments that had to wait for the first of their datagram.", float64(w.FragmentsHeld), l)
	m.gauge("weir_worker_flows", "Entries in use in the flow table.", float64(w.Flows), l)
	m.gauge("weir_worker_flow_capacity", "Entries of the flow table.", float64(w.FlowCapacity), l)
	m.counter("weir_worker_flows_evicted_total", "Trusted flows pushed out of the table by newer ones.", float64(w.FlowsEvicted), l)
	m.counter("weir_worker_flows_untrusted_evicted_total", "Flows not shown to be more than an opening, pushed out of the table.", float64(w.Untrusted), l)
	m.counter("weir_worker_flows_refused_total", "New flows that the table had no room for.", float64(w.Refused), l)
	m.counter("weir_worker_flows_unrecorded_total", "New flows above flows.new_rate, which got no entry.", float64(w.Unrecorded), l)
	m.gauge("weir_worker_nat_flows", "Flows with a SNAT port.", float64(w.NATFlows), l)
	m.counter("weir_worker_nat_taken_over_total", "Flows that were over and lost their SNAT port to a new one.", float64(w.NATTakenOver), l)
	m.counter("weir_worker_flows_expired_total", "Flows that were idle for too long.", float64(w.FlowsExpired), l)
	m.counter("weir_worker_wakeups_total", "Times the worker came back from sleeping.", float64(w.Wakeups), l)
	m.counter("weir_worker_pauses_total", "Batches that took more than a millisecond: the worker lost its CPU, or the kernel held it up.", float64(w.Pauses), l)
	m.gauge("weir_worker_longest_batch_seconds", "How long the longest batch took since the worker began.", float64(w.LongestUS)/1e6, l)
}

// network writes what this node says to others, and hears of them.
func (m emitter) network(a Appliance, view *reconcile.View) {
	for _, p := range a.Pools() {
		for family, c := range map[string]*PoolCount{"ipv4": p.IPv4, "ipv6": p.IPv6} {
			if c == nil {
				continue
			}
			l := labels{"pool", p.Name, "family", family}
			const help = "Addresses of the pool."
			used, _ := c.Used.Float64()
			free, _ := c.Free.Float64()
			m.gauge("weir_pool_addresses", help, used, l.with("state", "used"))
			m.gauge("weir_pool_addresses", help, free, l.with("state", "free"))
		}
	}
	for _, v := range view.Addresses {
		m.gauge("weir_vip_ready", "1 if this node has the healthy backends that the VIP needs.", truth(v.Ready), labels{"address", v.Address.String(), "pool", v.Pool})
	}
	type way struct{ address, protocol, to string }
	up := make(map[way]bool) // each once, or the whole scrape would be refused
	for _, s := range a.Announcements() {
		w := way{prefixText(s.Address), s.Protocol, s.To}
		up[w] = up[w] || s.State == announce.Announced
	}
	for w, announced := range up {
		m.gauge("weir_announcement_up", "1 if this node announces the address there.", truth(announced), labels{"address", w.address, "protocol", w.protocol, "to", w.to})
	}
	for _, p := range a.Peers() {
		l := labels{"peer", p.Name}
		m.gauge("weir_bgp_session_up", "1 if the session is established.", truth(p.State == established), l)
		m.gauge("weir_bgp_session_prefixes", "Prefixes announced to the peer.", float64(p.Prefixes), l)
		m.counter("weir_bgp_session_flaps_total", "Times the session was established and then lost.", float64(p.Flaps), l)
	}
	members := a.Members()
	alive := 0
	for _, n := range members {
		if n.Alive {
			alive++
		}
	}
	const help = "Nodes of the cluster that this one knows of."
	m.gauge("weir_cluster_members", help, float64(alive), labels{"state", "alive"})
	m.gauge("weir_cluster_members", help, float64(len(members)-alive), labels{"state", "dead"})
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
