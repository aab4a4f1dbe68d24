package soak

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"runtime/metrics"

	"github.com/urfave/cli/v2"

	"weir/dataplane/afxdp"
	"weir/perf/balancer"
	"weir/perf/measure"
)

// What a plane's process can be asked for. The answer is a Sample.
const (
	askSample = "sample"
	askTurn   = "turn" // and has applied the next snapshot before
)

const planeName = "soak-plane"

// PlaneCommand is what Run starts, below a program's command perf: in a process of
// its own, so that what it takes can be told from what the measuring takes.
func PlaneCommand() *cli.Command {
	return measure.AskedCommand(planeName, func(opt balancer.Options, log *slog.Logger) (measure.Server, error) {
		opt.Log = log
		b, err := balancer.OpenAlone(opt)
		return &plane{b}, err
	})
}

// plane is a balancer that says what it takes.
type plane struct{ *balancer.Balancer }

// Answer implements [measure.Server].
func (p *plane) Answer(ctx context.Context, question string) (any, error) {
	switch question {
	case askTurn:
		if err := p.Turn(); err != nil {
			return nil, err
		}
	case askSample:
	default:
		return nil, measure.ErrNoQuestion
	}
	return p.sample(ctx)
}

// Sample is how things are at one moment. Counts are since the start.
type Sample struct {
	Seconds float64 `json:"seconds"` // since traffic began

	Memory     uint64 `json:"memory"` // bytes of the process that are resident
	Heap       uint64 `json:"heap"`   // bytes of it that the last collection found in use
	Goroutines int    `json:"goroutines"`
	FDs        int    `json:"fds"`

	Snapshots int   `json:"snapshots"`
	Flows     int   `json:"flows"`
	SNATFlows int64 `json:"snat_flows"` // that have a SNAT port

	Received        uint64 `json:"received"`
	ReceiveDropped  uint64 `json:"receive_dropped"` // by the kernel, which found no room in the rings
	Sent            uint64 `json:"sent"`
	TransmitDropped uint64 `json:"transmit_dropped"`
	Dropped         uint64 `json:"dropped"` // by the worker, for any reason
	NewFlows        uint64 `json:"new_flows"`

	Frames afxdp.Account `json:"frames"`
	Total  int           `json:"total"`           // of Frames
	Fault  string        `json:"fault,omitempty"` // of them
}

// totalOf returns how many frames there are: each is in one place.
func totalOf(a afxdp.Account) int {
	return a.Free + a.Fill + a.Receiving + a.Received + a.Send + a.Sending + a.Completed + a.Held
}

// sample looks at everything but what is seen from outside.
func (p *plane) sample(ctx context.Context) (s Sample, err error) {
	frames, err := p.Frames(ctx)
	if err != nil {
		return s, err
	}
	f := frames[0] // there is one queue
	s.Frames, s.Total, s.Fault = f.Account, totalOf(f.Account), f.Fault
	status, err := p.Status(ctx)
	if err != nil {
		return s, err
	}
	s.Received, s.Sent = status.Received, status.Sent
	s.ReceiveDropped, s.TransmitDropped = status.ReceiveDropped, status.TransmitDropped
	for _, n := range status.Drops {
		s.Dropped += n
	}
	s.NewFlows, s.Flows, s.SNATFlows = status.Decided, status.Flows, status.SNATFlows
	s.Snapshots = p.Snapshots()
	s.Goroutines = runtime.NumGoroutine()
	s.Heap = liveHeap()
	s.FDs, err = openFiles()
	return s, err
}

// liveHeap returns how much of the heap the last collection found in use.
func liveHeap() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

// openFiles returns how many descriptors the process has, without the one that it
// takes to look.
func openFiles() (int, error) {
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0, fmt.Errorf("count descriptors: %w", err)
	}
	return len(fds) - 1, nil
}
