package snapshots

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os/exec"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"weir/controlplane/reconcile"
	"weir/dataplane/affinity"
)

// part is what one process measures, once: a kind of change, or a worker while
// something goes on. What the others have left in a heap does not get in its way.
type part struct {
	Change Change `json:"change,omitempty"`
	While  While  `json:"while,omitempty"`
	Round  int    `json:"round"`

	// As in Options.
	Services int `json:"services"`
	Backends int `json:"backends"`
	Changes  int `json:"changes"`
	Adopts   int `json:"adopts"`
}

// outcome is what the process has measured: one of the two.
type outcome struct {
	Cell *Cell   `json:"cell,omitempty"`
	Heap float64 `json:"heap_bytes,omitempty"` // only of All
	Away *Away   `json:"away,omitempty"`
}

func (p part) String() string {
	if p.Change != "" {
		return "change of " + string(p.Change)
	}
	return "worker while " + string(p.While)
}

// parts returns what is measured in a round.
func (o *Options) parts() (all []part) {
	like := part{Services: o.Services, Backends: o.Backends, Changes: o.Changes, Adopts: o.Adopts}
	for _, c := range changes() {
		p := like
		p.Change = c
		all = append(all, p)
	}
	for _, w := range whiles() {
		p := like
		p.While = w
		all = append(all, p)
	}
	return all
}

// start has the program, which has to have [PartCommand], measure the part.
func (p part) start(ctx context.Context, program string) (out outcome, err error) {
	arg, err := json.Marshal(p)
	if err != nil {
		return out, err
	}
	var said bytes.Buffer
	cmd := exec.CommandContext(ctx, program, "perf", partName, string(arg))
	cmd.Stderr = &said
	answer, err := cmd.Output()
	switch {
	case ctx.Err() != nil:
		return out, ctx.Err()
	case err != nil:
		return out, fmt.Errorf("%w: %s", err, strings.TrimSpace(said.String()))
	}
	if err := json.Unmarshal(answer, &out); err != nil {
		return out, fmt.Errorf("read what was measured: %w", err)
	}
	if (out.Cell == nil) != (p.Change == "") || (out.Away == nil) != (p.While == "") {
		return out, errors.New("something else was measured")
	}
	return out, nil
}

const partName = "snapshots-part"

// PartCommand is what Run starts, below a program's command perf.
func PartCommand() *cli.Command {
	return &cli.Command{
		Name:   partName,
		Hidden: true,
		Action: func(c *cli.Context) error {
			var p part
			if err := json.Unmarshal([]byte(c.Args().First()), &p); err != nil {
				return fmt.Errorf("measure snapshots: options: %w", err)
			}
			out, err := p.measure(c.Context)
			if err != nil {
				return err
			}
			return json.NewEncoder(c.App.Writer).Encode(out)
		},
	}
}

// measure measures the part in this process. Everything has to be there first,
// which is measured only if it is asked for.
func (p part) measure(ctx context.Context) (out outcome, err error) {
	w := newWorld(p.Services, p.Backends)
	if w.room, err = affinity.NewRoom(); err != nil {
		return out, err
	}
	before := heap()
	rec := reconcile.New(w.config, w.parts(), slog.New(slog.DiscardHandler))
	all, err := watched(Cell{Change: All, Round: p.Round}, 1, func(int) (time.Duration, error) { return w.first(ctx, rec) })
	if err != nil {
		return out, err
	}
	defer w.end()
	switch {
	case p.Change == All:
		return outcome{Cell: &all, Heap: float64(heap() - before)}, nil
	case p.Change != "":
		c, err := watched(Cell{Change: p.Change, Round: p.Round}, p.Changes, func(n int) (time.Duration, error) { return w.change(ctx, rec, p.Change, n) })
		return outcome{Cell: &c}, err
	}
	a, err := w.watchWorker(ctx, rec, Away{While: p.While, Round: p.Round}, p.Adopts)
	return outcome{Away: &a}, err
}
