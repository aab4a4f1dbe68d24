package demo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"weir/controlplane/api"
)

// monitor asks weir what it does, and the kernel what that costs. It belongs to
// one goroutine at a time.
type monitor struct {
	api *api.Client
	pid int

	description      string // of the driver
	first            answers
	previous, latest answers
}

// answers are what weir and the kernel said at one moment.
type answers struct {
	at       time.Time
	services []api.Service
	backends []api.Backend
	drops    []api.Drop
	cpu      time.Duration // that weir has used since it was started
}

func newMonitor(client *api.Client, pid int) (*monitor, error) {
	m := &monitor{api: client, pid: pid}
	_, err := m.cpu()
	return m, err
}

// describe says how weir takes its frames.
func (m *monitor) describe(ctx context.Context) (string, error) {
	var all []api.Interface
	if err := m.api.Get(ctx, "interfaces", &all); err != nil {
		return "", err
	}
	var texts []string
	for _, i := range all {
		driver := map[string]string{"afxdp": "AF_XDP", "afpacket": "AF_PACKET"}[i.Driver]
		if driver == "" {
			driver = i.Driver
		}
		if i.Mode != "" {
			driver += " (" + i.Mode + " mode)"
		}
		texts = append(texts, driver)
	}
	m.description = strings.Join(texts, ", ")
	return m.description, nil
}

// poll asks for everything once.
func (m *monitor) poll(ctx context.Context) error {
	now := answers{at: time.Now()}
	cpu, err := m.cpu()
	now.cpu = cpu
	err = errors.Join(err,
		m.api.Get(ctx, "services", &now.services),
		m.api.Get(ctx, "backends", &now.backends),
		m.api.Get(ctx, "drops", &now.drops))
	if err != nil {
		return fmt.Errorf("poll weir: %w", err)
	}
	m.previous, m.latest = m.latest, now
	if m.first.at.IsZero() {
		m.first, m.previous = now, now
	}
	return nil
}

// userHZ is the unit of times in /proc, proc_pid_stat(5).
const userHZ = 100

// cpu returns the time that weir has spent on CPUs.
func (m *monitor) cpu() (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", m.pid))
	if err != nil {
		return 0, fmt.Errorf("read weir's cpu time: %w", err)
	}
	return parseCPU(string(text))
}

// parseCPU adds up utime and stime, the fields 14 and 15. The second field is
// the program's name in parentheses and may contain anything.
func parseCPU(stat string) (time.Duration, error) {
	fields := strings.Fields(stat[strings.LastIndex(stat, ")")+1:])
	if len(fields) < 13 {
		return 0, fmt.Errorf("parse cpu time: %d fields after the name, want 13 at least", len(fields))
	}
	var ticks uint64
	for _, f := range fields[11:13] {
		n, err := strconv.ParseUint(f, 10, 32) // more is over a year
		if err != nil {
			return 0, fmt.Errorf("parse cpu time: %w", err)
		}
		ticks += n
	}
	return time.Duration(ticks) * time.Second / userHZ, nil
}

// newFlows returns how many flows weir has decided, by service.
func (a *answers) newFlows() map[string]uint64 {
	all := make(map[string]uint64)
	for _, s := range a.services {
		all[s.Name] = s.NewFlows
	}
	return all
}

// cpuShare is the part of one CPU that was used between two answers.
func cpuShare(from, to *answers) float64 {
	if took := to.at.Sub(from.at); took > 0 {
		return float64(to.cpu-from.cpu) / float64(took)
	}
	return 0
}

// serviceRows arranges weir's answers for the screen: a backend's addresses,
// one of each family, are one line.
func serviceRows(previous, latest *answers, names map[string]string) []serviceRow {
	var rows []serviceRow
	for _, s := range latest.services {
		row := serviceRow{name: s.Name, mode: s.Mode, load: loadOf(s.Load)}
		for _, a := range s.Addresses {
			row.vips = append(row.vips, a.String())
		}
		for _, b := range latest.backends {
			if b.Service == s.Name {
				row.backend(names[b.Address.String()]).merge(b.Status, loadOf(b.Load))
			}
		}
		rows = append(rows, row)
	}
	took := latest.at.Sub(previous.at).Seconds()
	if took <= 0 {
		return rows
	}
	for i := range rows {
		row := &rows[i]
		for _, s := range previous.services {
			if s.Name == row.name {
				row.load.rateSince(loadOf(s.Load), took)
			}
		}
		before := serviceRow{}
		for _, b := range previous.backends {
			if b.Service == row.name {
				before.backend(names[b.Address.String()]).merge(b.Status, loadOf(b.Load))
			}
		}
		for k := range row.backends {
			row.backends[k].load.rateSince(before.backend(row.backends[k].name).load, took)
		}
	}
	return rows
}

func loadOf(l api.Load) load {
	return load{packets: l.Packets, bytes: l.Bytes, flows: l.Flows}
}

// backend returns the line of a backend, a new one if there is none.
func (s *serviceRow) backend(name string) *backendRow {
	for i := range s.backends {
		if s.backends[i].name == name {
			return &s.backends[i]
		}
	}
	s.backends = append(s.backends, backendRow{name: name})
	return &s.backends[len(s.backends)-1]
}

// merge adds what weir says about one of the backend's addresses.
func (b *backendRow) merge(status string, l load) {
	switch b.status {
	case "", status:
		b.status = status
	default:
		b.status = "partly up"
	}
	b.load.packets += l.packets
	b.load.bytes += l.bytes
	b.load.flows += l.flows
}

// rateSince sets the rates from the counters of a number of seconds ago.
// Counters that have gone back belong to another slot, and have no rate.
func (l *load) rateSince(before load, seconds float64) {
	if l.packets >= before.packets && l.bytes >= before.bytes {
		l.packetRate = float64(l.packets-before.packets) / seconds
		l.bitRate = 8 * float64(l.bytes-before.bytes) / seconds
	}
}

// state is what is shown of the demo at a moment. It is called by the goroutine
// that the monitor belongs to.
func (d *Demo) state(started, now time.Time) *state {
	m := d.monitor
	s := &state{
		elapsed: min(now.Sub(started), d.opt.Duration), total: d.opt.Duration,
		driver: m.description, cpu: cpuShare(&m.previous, &m.latest), meanCPU: cpuShare(&m.first, &m.latest),
		services: serviceRows(&m.previous, &m.latest, d.names),
		requests: d.recorder.tally(now),
		events:   d.journal.all(),
	}
	for i := range s.requests {
		s.requests[i].service, s.requests[i].family = d.streams[i].service, d.streams[i].family()
	}
	for _, drop := range m.latest.drops {
		if drop.Packets > 0 {
			s.drops = append(s.drops, dropRow{drop.Reason, drop.Help, drop.Packets})
		}
	}
	return s
}
