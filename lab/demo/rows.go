package demo

import (
	"time"

	"weir/controlplane/api"
)

// serviceRows arranges weir's answers for the screen: a backend's addresses,
// one of each family, are one line.
func serviceRows(previous, latest *answers, names map[string]string) []serviceRow {
	var rows []serviceRow
	for _, s := range latest.services {
		row := serviceRow{name: s.Name, load: loadOf(s.Load)}
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

// mergeRows adds the rows of one weir to those of others.
func mergeRows(all, more []serviceRow) []serviceRow {
	for _, m := range more {
		row := findRow(&all, m.name)
		row.load.add(m.load)
		for _, b := range m.backends {
			row.backend(b.name).merge(b.status, b.load)
		}
	}
	return all
}

// findRow returns the row of a service, a new one if there is none.
func findRow(all *[]serviceRow, name string) *serviceRow {
	for i := range *all {
		if (*all)[i].name == name {
			return &(*all)[i]
		}
	}
	*all = append(*all, serviceRow{name: name})
	return &(*all)[len(*all)-1]
}

func loadOf(l api.Load) load {
	return load{packets: l.Packets, bytes: l.Bytes, flows: l.Flows}
}

// add adds what another weir, or another address, has.
func (l *load) add(m load) {
	l.packets += m.packets
	l.bytes += m.bytes
	l.flows += m.flows
	l.packetRate += m.packetRate
	l.bitRate += m.bitRate
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

// ended leaves of a row what is true of a weir that is not there any more.
func (s *serviceRow) ended() {
	s.load.flows = 0
	for i := range s.backends {
		s.backends[i].status, s.backends[i].load.flows = "", 0
	}
}

// merge adds what a weir says about one of the backend's addresses; without a
// status, it says nothing about that.
func (b *backendRow) merge(status string, l load) {
	switch {
	case status == "" || status == b.status:
	case b.status == "":
		b.status = status
	default:
		b.status = "partly up"
	}
	b.load.add(l)
}

// rateSince sets the rates from the counters of a number of seconds ago.
// Counters that have gone back belong to another slot, and have no rate.
func (l *load) rateSince(before load, seconds float64) {
	if l.packets >= before.packets && l.bytes >= before.bytes {
		l.packetRate = float64(l.packets-before.packets) / seconds
		l.bitRate = 8 * float64(l.bytes-before.bytes) / seconds
	}
}

// mergeDrops adds up what several weirs have dropped.
func mergeDrops(all []dropRow) (sum []dropRow) {
next:
	for _, d := range all {
		for i := range sum {
			if sum[i].reason == d.reason {
				sum[i].packets += d.packets
				continue next
			}
		}
		sum = append(sum, d)
	}
	return sum
}

// state is what is shown of the demo at a moment.
func (d *Demo) state(started, now time.Time) *state {
	s := &state{
		elapsed: min(now.Sub(started), d.opt.Duration), total: d.opt.Duration,
		driver:   d.monitors[0].description,
		requests: d.recorder.tally(now),
		long:     d.long.outcome(),
		events:   d.journal.all(),
	}
	var busy time.Duration
	var drops []dropRow
	for _, m := range d.monitors {
		row := m.row()
		s.weirs = append(s.weirs, row)
		s.cpu += row.cpu
		busy += m.busy()
		drops = append(drops, m.dropped()...)
		s.services = mergeRows(s.services, m.rows(d.names))
	}
	s.drops = mergeDrops(drops)
	if took := now.Sub(started); took > 0 {
		s.meanCPU = float64(busy) / float64(took)
	}
	for i := range s.requests {
		s.requests[i].service, s.requests[i].family = d.streams[i].service, d.streams[i].family()
	}
	return s
}
