// Package connections measures what TCP connections cost a load balancer: how
// many per second there can be, and how much CPU each takes.
//
// The problem it solves: a packet rate says nothing of a proxy, which handles no
// packets but connections, and little of a balancer whose work is mostly at the
// beginning and the end of a flow. So real clients open real connections through
// weir, through the proxies and kernel balancers that a user would pick instead,
// and past all of them; each is asked one byte, answers one, and closes, and
// whoever is not answered by a backend is counted.
//
// All of it is one machine, and on a veth the work of receiving is done, and
// accounted for, where a frame is sent from. So the balancer has a CPU to itself,
// and on it the kernel's work for the balancer is told from its work for the
// neighbours, which also gives balancers in the kernel a time of their own: see
// cores. Nothing else is tuned.
package connections

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"weir/perf/measure"
	"weir/perf/peers"
)

// Subject is what clients connect through.
type Subject string

// The subjects. Proxies have one thread, and are as Debian has them.
const (
	Direct  Subject = "direct"   // nothing: clients choose a backend in turn
	WeirDSR Subject = "weir-dsr" // weir, mode dsr
	WeirNAT Subject = "weir-nat" // weir, mode nat, with SNAT
	HAProxy Subject = "haproxy"  // HAProxy, mode tcp
	Nginx   Subject = "nginx"    // nginx, module stream
	NftDSR  Subject = "nft-dsr"  // peers.NftDSR
	NftDNAT Subject = "nft-dnat" // peers.NftDNAT, with SNAT
	IPVS    Subject = "ipvs"     // peers.IPVS, where the kernel has it
)

// Subjects returns all subjects.
func Subjects() []Subject {
	return []Subject{Direct, WeirDSR, WeirNAT, HAProxy, Nginx, NftDSR, NftDNAT, IPVS}
}

// Load is how clients connect.
type Load string

// The loads.
const (
	// Closed is a fixed number of clients, each of which opens a connection as
	// soon as its last one has ended: how many can there be? That is asked of
	// clients, backends and balancer together.
	Closed Load = "closed"

	// Paced is a fixed number of new connections per second, the same for all:
	// what do they cost, and how long do they take?
	Paced Load = "paced"
)

// Loads returns all loads.
func Loads() []Load { return []Load{Closed, Paced} }

// Options says how to measure connections.
type Options struct {
	measure.Setup               // CPUs are that of clients and backends, and the balancer's
	Weir          string        // the weir binary; not needed without weir
	Clients       int           // connections at a time, with Paced at most; default 64
	Rate          int           // connections per second of Paced; default 2,000
	Patience      time.Duration // after which a connection has failed; default 5 s
	Subjects      []Subject     // default all
	Loads         []Load        // default all
}

// maxClients is far below what a process may have open.
const maxClients = 400

func (opt *Options) complete() (err error) {
	if opt.Clients == 0 {
		opt.Clients = 64
	}
	if opt.Rate == 0 {
		opt.Rate = 2000
	}
	if opt.Patience == 0 {
		opt.Patience = 5 * time.Second
	}
	if opt.Clients < 1 || opt.Clients > maxClients || opt.Rate < 1 {
		return fmt.Errorf("%d clients, %d connections per second: want 1 to %d, and 1 or more", opt.Clients, opt.Rate, maxClients)
	}
	if len(opt.Subjects) == 0 {
		opt.Subjects = Subjects()
	}
	if len(opt.Loads) == 0 {
		opt.Loads = Loads()
	}
	for _, s := range opt.Subjects {
		if !slices.Contains(Subjects(), s) {
			return fmt.Errorf("no subject %q; there are %v", s, Subjects())
		}
		if (s == WeirDSR || s == WeirNAT) && opt.Weir == "" {
			return errors.New("no weir binary: build it with make build")
		}
	}
	for _, l := range opt.Loads {
		if !slices.Contains(Loads(), l) {
			return fmt.Errorf("no load %q; there are %v", l, Loads())
		}
	}
	if opt.Weir != "" {
		if opt.Weir, err = filepath.Abs(opt.Weir); err != nil {
			return err
		}
	}
	return opt.Setup.Complete()
}

// Measure measures each subject under each load, as often as asked, in rounds: all
// of them once, in random order, before any of them again, each time in new
// network namespaces and new processes. It needs root. If it fails, or ctx ends,
// the report has what was measured until then. A subject that this kernel does
// not have is in the report's Missing.
func Measure(ctx context.Context, opt Options) (Report, error) {
	report, err := prepare(ctx, &opt)
	if err != nil {
		return Report{}, fmt.Errorf("measure connections: %w", err)
	}
	var cells []Cell
	for _, subject := range opt.Subjects {
		for _, load := range opt.Loads {
			cells = append(cells, Cell{Subject: subject, Load: load})
		}
	}
	err = measure.Rounds(&opt.Setup, cells, func(round int, cell Cell) error {
		if _, missing := report.Missing[cell.Subject]; missing {
			return nil
		}
		cell.Round = round
		err := cell.measure(ctx, &opt)
		if errors.Is(err, peers.ErrNotSupported) {
			report.Missing[cell.Subject] = err.Error()
			opt.Log.Warn("not measured", "subject", cell.Subject, "error", err)
			return nil
		}
		if err != nil {
			return fmt.Errorf("measure connections through %s, %s, round %d: %w", cell.Subject, cell.Load, round, err)
		}
		report.Add(cell)
		opt.Log.Info("measured", "subject", cell.Subject, "load", cell.Load, "round", round,
			"per_second", int(cell.PerSecond), "cpu", time.Duration(cell.CPU()*1e9), "failed", cell.Account.failed())
		return nil
	})
	return report, err
}

func prepare(ctx context.Context, opt *Options) (Report, error) {
	if err := opt.complete(); err != nil {
		return Report{}, err
	}
	head, err := opt.Begin()
	if err != nil {
		return Report{}, err
	}
	versions := programs()
	if slices.Contains(opt.Subjects, WeirDSR) || slices.Contains(opt.Subjects, WeirNAT) {
		if versions["weir"], err = measure.VersionOf(ctx, opt.Weir); err != nil {
			return Report{}, err
		}
	}
	if slices.Contains(opt.Subjects, IPVS) {
		if version, err := peers.IPVSVersion(); err == nil { // else who sets it up says why
			versions[string(IPVS)] = version
		}
	}
	return Report{
		Head:     head,
		Programs: versions,
		Clients:  opt.Clients,
		Rate:     opt.Rate,
		Window:   opt.Window.Seconds(),
		Missing:  make(map[Subject]string),
	}, nil
}
