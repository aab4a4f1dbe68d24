package site

import (
	"context"

	"weir/controlplane/api"
	"weir/lab/netlab"
)

// A site has one weir, and does with it what [Weir] does.

// StartWeir writes the configuration, starts weir, and waits until its api
// answers. When weir ends instead, its output is in the error.
func (s *Site) StartWeir(ctx context.Context) error { return s.weir.Start(ctx) }

// Weir returns the process of a weir that has been started and not stopped, or
// nil.
func (s *Site) Weir() *netlab.Process { return s.weir.Process() }

// StopWeir ends weir with SIGTERM, as a service manager does. It returns an
// error if weir did not end well, or in time.
func (s *Site) StopWeir() error { return s.weir.Stop() }

// KillWeir ends weir with SIGKILL.
func (s *Site) KillWeir() error { return s.weir.Kill() }

// WriteConfig changes Config, if mutate is not nil, and writes it to ConfigPath.
func (s *Site) WriteConfig(mutate func(*Config)) error { return s.weir.WriteConfig(mutate) }

// Reload writes Config and has weir put it in force.
func (s *Site) Reload(ctx context.Context) (api.Reloaded, error) { return s.weir.Reload(ctx) }

// API returns a client of weir's api, which lasts as long as the site.
func (s *Site) API() *api.Client { return s.weir.API() }

// WeirLog returns all that the site's weirs have logged so far.
func (s *Site) WeirLog() string { return s.weir.Log() }

// RunWeir runs a weir command in weir's host to its end, for instance "show",
// "backends", and returns its output. The socket is found by itself.
func (s *Site) RunWeir(ctx context.Context, args ...string) (string, error) {
	return s.weir.Run(ctx, args...)
}

// WaitReady waits until weir is ready, see [Weir.WaitReady].
func (s *Site) WaitReady(ctx context.Context) error { return s.weir.WaitReady(ctx) }

// Await calls check until it returns nil, see [Await].
func (s *Site) Await(ctx context.Context, check func() error) error { return Await(ctx, check) }
