package measure

import (
	"fmt"
	"time"

	"weir/lab/netlab"
)

// Head is what any report begins with; it embeds it.
type Head struct {
	Measured time.Time `json:"measured"` // when it began
	Machine  Machine   `json:"machine"`
	Seed     uint64    `json:"seed"` // of all that is random: the order, the traffic
}

// NewHead returns the head of a measurement that begins now.
func NewHead(seed uint64) (Head, error) {
	machine, err := ThisMachine()
	return Head{Measured: time.Now().UTC().Truncate(time.Second), Machine: machine, Seed: seed}, err
}

// Begin is NewHead for a measurement in network namespaces: before it begins, it
// sees that nobody else measures, and removes what labs that were killed have left.
// It needs root.
func (s *Setup) Begin() (Head, error) {
	if err := Alone(); err != nil {
		return Head{}, err
	}
	if _, err := netlab.Sweep(); err != nil {
		return Head{}, err
	}
	return NewHead(s.Seed)
}

// At says for a reader where and when something was measured.
func (h *Head) At() string {
	m := &h.Machine
	return fmt.Sprintf("%s, Linux %s, %d x %s, %s, weir %s",
		h.Measured.Format(time.DateOnly), m.Kernel, m.CPUs, m.CPU, m.Go, shortCommit(m.Commit))
}
