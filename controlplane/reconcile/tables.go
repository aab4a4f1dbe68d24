package reconcile

import (
	"fmt"
	"strconv"
	"strings"

	"weir/dataplane/maglev"
)

// tables remembers the Maglev tables in use by what they were built from, so
// that a change that leaves a service's backends and weights alone (a new MAC,
// say) builds nothing, and services with the same backends share one.
type tables struct {
	current map[string][]uint16
	next    map[string][]uint16 // those asked for since begin
}

func newTables() *tables { return &tables{current: make(map[string][]uint16)} }

// begin starts a compilation. keep, if that succeeded, drops the tables it did
// not ask for.
func (t *tables) begin() { t.next = make(map[string][]uint16) }
func (t *tables) keep()  { t.current, t.next = t.next, nil }

func (t *tables) get(size int, backends []maglev.Backend) ([]uint16, error) {
	var b strings.Builder
	b.WriteString(strconv.Itoa(size))
	for _, be := range backends {
		fmt.Fprintf(&b, " %s/%d", be.Name, be.Weight)
	}
	key := b.String()
	if table, ok := t.next[key]; ok {
		return table, nil
	}
	table, ok := t.current[key]
	if !ok {
		var err error
		if table, err = maglev.Build(size, backends); err != nil {
			return nil, err
		}
	}
	t.next[key] = table
	return table, nil
}
