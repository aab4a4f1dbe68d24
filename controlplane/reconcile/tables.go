package reconcile

import (
	"strconv"

	"weir/dataplane/maglev"
)

// table is a Maglev table and what part of it each backend has, 0 to 1. It is
// never changed once built.
type table struct {
	entries []uint16
	shares  []float64
}

// tables remembers the Maglev tables in use by what they were built from, so
// that a change that leaves a service's backends and weights alone (a new MAC,
// say) builds nothing, and services with the same backends share one.
type tables struct {
	current map[string]*table
	next    map[string]*table // those asked for since begin
	key     []byte            // scratch
}

func newTables() *tables { return &tables{current: make(map[string]*table)} }

// begin starts a compilation. keep, if that succeeded, drops the tables it did
// not ask for.
func (t *tables) begin() { t.next = make(map[string]*table) }
func (t *tables) keep()  { t.current, t.next = t.next, nil }

func (t *tables) get(size int, backends []maglev.Backend) (*table, error) {
	key := strconv.AppendInt(t.key[:0], int64(size), 10)
	for i := range backends {
		key = append(append(key, ' '), backends[i].Name...)
		key = strconv.AppendUint(append(key, '/'), uint64(backends[i].Weight), 10)
	}
	t.key = key
	if found, ok := t.next[string(key)]; ok {
		return found, nil
	}
	found, ok := t.current[string(key)]
	if !ok {
		var err error
		if found, err = build(size, backends); err != nil {
			return nil, err
		}
	}
	t.next[string(key)] = found
	return found, nil
}

func build(size int, backends []maglev.Backend) (*table, error) {
	entries, err := maglev.Build(size, backends)
	if err != nil {
		return nil, err
	}
	t := &table{entries: entries, shares: make([]float64, len(backends))}
	for _, i := range entries {
		t.shares[i] += 1 / float64(len(entries))
	}
	return t, nil
}
