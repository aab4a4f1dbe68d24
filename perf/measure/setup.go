package measure

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"time"

	"weir/dataplane/affinity"
)

// Setup is what any measurement can be told.
type Setup struct {
	Repeats int           // of each cell; default 5
	Window  time.Duration // of a measurement; default 2 s
	CPUs    []int         // of the generator and of what is measured; default the first two allowed
	Seed    uint64        // of the order; default random

	// Program is started, with further arguments, for what is measured. It has
	// to have the command perf. Default: the running one.
	Program string

	Log *slog.Logger // default: nothing is logged
}

// Complete fills in the defaults, and fails on what cannot be, and without two
// CPUs.
func (s *Setup) Complete() error {
	if err := s.CompleteWithoutCPUs(); err != nil {
		return err
	}
	if len(s.CPUs) == 0 {
		cpus, err := affinity.Allowed()
		if err != nil {
			return err
		}
		s.CPUs = cpus[:min(len(cpus), 2)]
	}
	if len(s.CPUs) != 2 || s.CPUs[0] == s.CPUs[1] {
		return errors.New("what is measured and what sends to it need a cpu each: run on a machine with two, or name two")
	}
	return nil
}

// CompleteWithoutCPUs is Complete for a measurement that leaves it to the scheduler
// who runs where.
func (s *Setup) CompleteWithoutCPUs() error {
	if s.Repeats == 0 {
		s.Repeats = 5
	}
	if s.Window == 0 {
		s.Window = 2 * time.Second
	}
	if s.Repeats < 1 || s.Window < 0 {
		return fmt.Errorf("%d rounds with windows of %v: nothing would be measured", s.Repeats, s.Window)
	}
	if s.Seed == 0 {
		s.Seed = rand.Uint64()
	}
	if s.Log == nil {
		s.Log = slog.New(slog.DiscardHandler)
	}
	if s.Program == "" {
		program, err := os.Executable()
		if err != nil {
			return fmt.Errorf("find own program: %w", err)
		}
		s.Program = program
	}
	return nil
}

// Rounds calls measure for all cells in random order, and then for all of them
// again in another, until it fails. Meanwhile, each line in the Setup's log has the
// cell's number, and how many there are.
func Rounds[C any](s *Setup, cells []C, measure func(round int, cell C) error) error {
	random := rand.New(rand.NewPCG(s.Seed, 0))
	log, begun := s.Log, 0
	defer func() { s.Log = log }()
	for round := range s.Repeats {
		order := slices.Clone(cells)
		random.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
		for _, cell := range order {
			begun++
			if log != nil {
				s.Log = log.With(ProgressKey, fmt.Sprintf("%d/%d", begun, s.Repeats*len(cells)))
			}
			if err := measure(round+1, cell); err != nil {
				return err
			}
		}
	}
	return nil
}

// ProgressKey is the key of a cell's number in the log, and of how many there are:
// progress=4/60.
const ProgressKey = "progress"
