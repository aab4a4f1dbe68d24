package l2

import (
	"slices"
	"time"
)

// A link on which frames cannot be sent is left alone, but for one frame every
// retryInterval, and after faultRounds of these in a row, two seconds, it counts: the
// node is then less ready for the addresses there than one that can speak, and gives
// them up to it. It keeps them if there is none, since the workers do not need the
// kernel's queue to answer and to forward.
const (
	retryInterval = time.Second
	faultRounds   = 3
)

// fault is a link on which sending has failed last.
type fault struct {
	err    string
	rounds int       // in a row
	retry  time.Time // when one more frame is sent
}

// mute reports whether a link has failed for so long that it counts.
func (m *machine) mute(name string) bool {
	f := m.faults[name]
	return f != nil && f.rounds >= faultRounds
}

// speechless reports whether an address cannot be asked for now: on none of its
// links can be sent, or on one it is not known yet.
func (m *machine) speechless(v *vip) bool {
	able := false
	for _, name := range v.links {
		if _, usable := find(m.interfaces, name); !usable {
			continue
		}
		if m.faults[name] == nil {
			able = true
		} else if !m.mute(name) {
			return true
		}
	}
	return !able
}

// retry sends a frame on links on which that has failed. It asks for an address,
// which does no harm, whoever has it.
func (m *machine) retry(now time.Time) {
	for name, f := range m.faults {
		if now.Before(f.retry) {
			continue
		}
		f.retry = now.Add(retryInterval)
		i, _ := find(m.interfaces, name)
		for _, v := range m.sorted() {
			if slices.Contains(v.links, name) {
				m.frames[name] = append(m.frames[name], message{addr: v.addr, frame: Probe(v.addr, i.MAC), probe: true})
				break
			}
		}
	}
}

// fail takes note that sending has failed.
func (m *machine) fail(name string, err error, now time.Time) {
	f := m.faults[name]
	if f == nil {
		f = &fault{}
		m.faults[name] = f
	}
	if f.err != err.Error() {
		m.log.Warn("cannot speak for addresses on a link", "interface", name, "error", err)
	}
	f.err, f.rounds, f.retry = err.Error(), f.rounds+1, now.Add(retryInterval)
	if f.rounds == faultRounds {
		m.log.Warn("addresses on a link are left to nodes that can speak there", "interface", name)
		m.changed, m.next = true, now
	}
	if f.retry.Before(m.next) {
		m.next = f.retry
	}
}

// works takes note that sending has not failed.
func (m *machine) works(name string, now time.Time) {
	if m.faults[name] == nil {
		return
	}
	m.log.Info("can speak for addresses on a link again", "interface", name)
	delete(m.faults, name)
	m.changed, m.next = true, now
	for _, v := range m.vips {
		if v.phase == held && slices.Contains(v.links, name) {
			v.burst(now)
		}
	}
}

// fault says why a link cannot be spoken on; empty if it can.
func (m *machine) fault(name string) string {
	if f := m.faults[name]; f != nil {
		return f.err
	}
	return ""
}

// mend forgets the faults of links that are down or another station now.
func (m *machine) mend(before []Interface) {
	for name := range m.faults {
		is, usable := find(m.interfaces, name)
		was, _ := find(before, name)
		if !usable || is.MAC != was.MAC {
			delete(m.faults, name)
		}
	}
}
