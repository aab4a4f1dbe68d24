package connections

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os/exec"

	"github.com/urfave/cli/v2"

	"weir/lab/netlab"
	"weir/perf/measure"
)

// What the processes of clients and servers can be asked for.
const (
	askStatus = "status" // a clientCounts, or by how many connections each backend has answered
	askFinish = "finish" // of clients: likewise, when all that they have begun has ended
)

// Names of the commands of these processes, below the command connections.
const (
	clientCommandName = "client"
	serverCommandName = "server"
)

func startClients(host *netlab.Host, s *measure.Setup, opt clientOptions) (*measure.Asked, error) {
	p, err := measure.StartAsked(host, exec.Command(s.Program, "perf", commandName, clientCommandName), opt)
	if err != nil {
		return nil, fmt.Errorf("start clients: %w", err)
	}
	return p, nil
}

// startServers starts one process that serves at an address of several hosts: a
// socket stays in the namespace where it was made.
func startServers(ctx context.Context, s *measure.Setup, hosts []*netlab.Host, address string) (*measure.Asked, error) {
	cmd := exec.Command(s.Program, "perf", commandName, serverCommandName)
	for _, h := range hosts {
		l, err := h.Listen(ctx, "tcp4", address)
		if err != nil {
			return nil, err
		}
		defer l.Close()
		file, err := l.(*net.TCPListener).File()
		if err != nil {
			return nil, err
		}
		defer file.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, file)
	}
	p, err := measure.StartAsked(hosts[0], cmd, serverOptions{Listeners: len(hosts)})
	if err != nil {
		return nil, fmt.Errorf("start servers: %w", err)
	}
	return p, nil
}

// serverOptions says what a process that serves was given.
type serverOptions struct {
	Listeners int // sockets, its first extra files
}

// firstExtra is the number of the first of a process's extra files.
const firstExtra = 3

func clientCommand() *cli.Command {
	return measure.AskedCommand(clientCommandName, func(opt clientOptions, _ *slog.Logger) (measure.Server, error) {
		clients, err := newClients(opt)
		return &clientServer{clients: clients, ended: make(chan struct{})}, err
	})
}

// clientServer has clients asked.
type clientServer struct {
	clients *clients
	ended   chan struct{}
}

// Run implements [measure.Server]. Clients finish what they have begun.
func (s *clientServer) Run(ctx context.Context) error {
	defer close(s.ended)
	defer context.AfterFunc(ctx, s.clients.stop)()
	return s.clients.run()
}

// Threads implements [measure.Server]: nobody measures them.
func (*clientServer) Threads(context.Context) ([]int, error) { return nil, nil }

// Answer implements [measure.Server]. To finish takes as long as a connection may,
// whatever ctx says.
func (s *clientServer) Answer(_ context.Context, question string) (any, error) {
	switch question {
	case askFinish:
		s.clients.stop()
		<-s.ended
	case askStatus:
	default:
		return nil, measure.ErrNoQuestion
	}
	return s.clients.status(), nil
}

func serverCommand() *cli.Command {
	return measure.AskedCommand(serverCommandName, func(opt serverOptions, _ *slog.Logger) (measure.Server, error) {
		var listeners []int
		for i := range opt.Listeners {
			listeners = append(listeners, firstExtra+i)
		}
		servers, err := newServers(listeners)
		return serverServer{servers}, err
	})
}

// serverServer has servers asked.
type serverServer struct{ servers *servers }

// Run implements [measure.Server]. The servers' thread ends with the process.
func (s serverServer) Run(ctx context.Context) error {
	ended := make(chan error, 1)
	go func() { ended <- s.servers.run() }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		return nil
	}
}

// Threads implements [measure.Server]: nobody measures them.
func (serverServer) Threads(context.Context) ([]int, error) { return nil, nil }

// Answer implements [measure.Server].
func (s serverServer) Answer(_ context.Context, question string) (any, error) {
	if question != askStatus {
		return nil, measure.ErrNoQuestion
	}
	return s.servers.status(), nil
}
