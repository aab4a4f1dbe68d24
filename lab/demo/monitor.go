package demo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"weir/controlplane/api"
	"weir/lab/netlab"
)

// monitor asks a weir what it does, and the kernel what that costs. It knows
// when the weir is not there, and then asks nobody.
type monitor struct {
	name        string
	api         *api.Client
	description string // of the driver; set once by appear

	mu               sync.Mutex
	process          *netlab.Process // nil while it is not there
	first            answers
	previous, latest answers
	past             []answers // the last of each weir that was there before
	past0            []answers // the first of each
}

// answers are what weir and the kernel said at one moment.
type answers struct {
	at       time.Time
	services []api.Service
	backends []api.Backend
	drops    []api.Drop
	peers    []api.Peer
	cpu      time.Duration // that weir has used since it was started
}

func newMonitor(name string, client *api.Client) *monitor { return &monitor{name: name, api: client} }

// appear says that a weir is there, and asks it for the first time.
func (m *monitor) appear(ctx context.Context, p *netlab.Process) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.process = p
	m.first, m.previous, m.latest = answers{}, answers{}, answers{}
	if m.description == "" {
		if err := m.describe(ctx); err != nil {
			return err
		}
	}
	return m.ask(ctx)
}

// vanish asks once more, and says that weir is about to be gone. It returns when
// it began to ask: what happened after that has not been seen.
func (m *monitor) vanish(ctx context.Context) (time.Time, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	asked := time.Now()
	err := m.ask(ctx)
	m.past, m.past0 = append(m.past, m.latest), append(m.past0, m.first)
	m.process = nil
	m.first, m.previous, m.latest = answers{}, answers{}, answers{}
	return asked, err
}

// died says whether weir has ended without having been said to vanish.
func (m *monitor) died() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.process == nil {
		return false
	}
	select {
	case <-m.process.Done():
		return true
	default:
		return false
	}
}

// describe says how weir takes its frames.
func (m *monitor) describe(ctx context.Context) error {
	var all []api.Interface
	if err := m.api.Get(ctx, "interfaces", &all); err != nil {
		return err
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
	return nil
}

// poll asks for everything once, if weir is there.
func (m *monitor) poll(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.process == nil {
		return nil
	}
	return m.ask(ctx)
}

// ask is called with mu held.
func (m *monitor) ask(ctx context.Context) error {
	now := answers{at: time.Now()}
	cpu, err := cpuOf(m.process.PID())
	now.cpu = cpu
	err = errors.Join(err,
		m.api.Get(ctx, "services", &now.services),
		m.api.Get(ctx, "backends", &now.backends),
		m.api.Get(ctx, "drops", &now.drops),
		m.api.Get(ctx, "peers", &now.peers))
	if err != nil {
		return fmt.Errorf("poll %s: %w", m.name, err)
	}
	m.previous, m.latest = m.latest, now
	if m.first.at.IsZero() {
		m.first, m.previous = now, now
	}
	return nil
}

// userHZ is the unit of times in /proc, proc_pid_stat(5).
const userHZ = 100

// cpuOf returns the time that a process has spent on CPUs.
func cpuOf(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
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

// newFlows returns how many flows the weir, and those that were there before,
// have decided, by service.
func (m *monitor) newFlows() map[string]uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := make(map[string]uint64)
	for _, a := range append([]answers{m.latest}, m.past...) {
		for _, s := range a.services {
			all[s.Name] += s.NewFlows
		}
	}
	return all
}

// busy returns the time that the weir, and those before, have spent on CPUs
// while they were watched.
func (m *monitor) busy() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	sum := m.latest.cpu - m.first.cpu
	for i := range m.past {
		sum += m.past[i].cpu - m.past0[i].cpu
	}
	return sum
}

// dropped returns the frames dropped, by reason.
func (m *monitor) dropped() (all []dropRow) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, a := range append([]answers{m.latest}, m.past...) {
		for _, d := range a.drops {
			if d.Packets > 0 {
				all = append(all, dropRow{d.Reason, d.Help, d.Packets})
			}
		}
	}
	return all
}

// rows is what the weir has sent on, with what those before have.
func (m *monitor) rows(names map[string]string) []serviceRow {
	m.mu.Lock()
	defer m.mu.Unlock()
	rows := serviceRows(&m.previous, &m.latest, names)
	for i := range m.past {
		before := serviceRows(&m.past[i], &m.past[i], names)
		for j := range before {
			before[j].ended()
		}
		rows = mergeRows(rows, before)
	}
	return rows
}

// row is the weir as a whole.
func (m *monitor) row() weirRow {
	m.mu.Lock()
	defer m.mu.Unlock()
	w := weirRow{name: m.name, status: "killed"}
	if m.process == nil {
		return w
	}
	w.status, w.cpu, w.sessions = "forwards", cpuShare(&m.previous, &m.latest), len(m.latest.peers)
	for _, p := range m.latest.peers {
		if p.State == "established" {
			w.up++
		}
	}
	for _, s := range serviceRows(&m.previous, &m.latest, nil) {
		w.load.add(s.load)
	}
	return w
}

// cpuShare is the part of one CPU that was used between two answers.
func cpuShare(from, to *answers) float64 {
	if took := to.at.Sub(from.at); took > 0 {
		return float64(to.cpu-from.cpu) / float64(took)
	}
	return 0
}
