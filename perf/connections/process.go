package connections

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"

	"github.com/urfave/cli/v2"

	"weir/lab/netlab"
	"weir/perf/measure"
)

// process is clients or servers as the measuring process sees them: each line on
// its standard input is a question for its status, and at the end of it clients
// finish what they have begun, and answer a last time.
type process[S any] struct {
	*measure.Child
	input io.WriteCloser
}

func start[S any](host *netlab.Host, cmd *exec.Cmd) (*process[S], error) {
	input, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	c, err := measure.StartChild(host, cmd)
	if err != nil {
		return nil, err
	}
	return &process[S]{c, input}, nil
}

func (p *process[S]) status() (s S, err error) {
	if _, err := fmt.Fprintln(p.input); err != nil {
		return s, err
	}
	return s, p.Read(&s)
}

// stop ends the process and returns its last status.
func (p *process[S]) stop() (s S, err error) {
	if err := p.input.Close(); err != nil {
		return s, err
	}
	if err := p.Read(&s); err != nil {
		return s, err
	}
	return s, p.Process.Wait()
}

// Names of the commands that start starts, below the command connections.
const (
	clientCommandName = "client"
	serverCommandName = "server"
)

func startClients(host *netlab.Host, s *measure.Setup, opt clientOptions) (*process[clientCounts], error) {
	args := []string{"perf", commandName, clientCommandName,
		"--number", strconv.Itoa(opt.number), "--rate", strconv.Itoa(opt.rate), "--backends", strconv.Itoa(opt.backends),
		"--patience", opt.patience.String()}
	for _, a := range opt.to {
		args = append(args, "--to", a.String())
	}
	for _, a := range opt.from {
		args = append(args, "--from", a.String())
	}
	return start[clientCounts](host, exec.Command(s.Program, args...))
}

// startServers starts one process that serves at an address of several hosts: a
// socket stays in the namespace where it was made.
func startServers(ctx context.Context, s *measure.Setup, hosts []*netlab.Host, address string) (*process[[]uint64], error) {
	cmd := exec.Command(s.Program, "perf", commandName, serverCommandName, "--listeners", strconv.Itoa(len(hosts)))
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
	return start[[]uint64](hosts[0], cmd)
}

// firstExtra is the number of the first of a process's extra files.
const firstExtra = 3

func clientCommand() *cli.Command {
	return &cli.Command{
		Name:   clientCommandName,
		Hidden: true,
		Flags: []cli.Flag{
			&cli.StringSliceFlag{Name: "to", Required: true},
			&cli.StringSliceFlag{Name: "from", Required: true},
			&cli.IntFlag{Name: "number", Required: true},
			&cli.IntFlag{Name: "rate", Required: true},
			&cli.IntFlag{Name: "backends", Required: true},
			&cli.DurationFlag{Name: "patience", Required: true},
		},
		Action: func(c *cli.Context) error {
			opt := clientOptions{number: c.Int("number"), rate: c.Int("rate"), backends: c.Int("backends"), patience: c.Duration("patience")}
			for _, text := range c.StringSlice("to") {
				a, err := netip.ParseAddrPort(text)
				if err != nil {
					return err
				}
				opt.to = append(opt.to, a)
			}
			for _, text := range c.StringSlice("from") {
				a, err := netip.ParseAddr(text)
				if err != nil {
					return err
				}
				opt.from = append(opt.from, a)
			}
			clients, err := newClients(opt)
			if err != nil {
				return err
			}
			ended := make(chan error, 1)
			go func() { ended <- clients.run() }()
			answers := json.NewEncoder(os.Stdout)
			err = answer(answers, clients.status)
			clients.stop()
			if err := errors.Join(err, <-ended); err != nil {
				return err
			}
			return answers.Encode(clients.status())
		},
	}
}

func serverCommand() *cli.Command {
	return &cli.Command{
		Name:   serverCommandName,
		Hidden: true,
		Flags:  []cli.Flag{&cli.IntFlag{Name: "listeners", Required: true}},
		Action: func(c *cli.Context) error {
			var listeners []int
			for i := range c.Int("listeners") {
				listeners = append(listeners, firstExtra+i)
			}
			servers, err := newServers(listeners)
			if err != nil {
				return err
			}
			go func() {
				fmt.Fprintln(os.Stderr, servers.run())
				os.Exit(1)
			}()
			answers := json.NewEncoder(os.Stdout)
			if err := answer(answers, servers.status); err != nil {
				return err
			}
			return answers.Encode(servers.status())
		},
	}
}

// answer answers each line of the standard input with a status.
func answer[S any](answers *json.Encoder, status func() S) error {
	if err := answers.Encode(measure.Started{}); err != nil {
		return err
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		if err := answers.Encode(status()); err != nil {
			return err
		}
	}
	return lines.Err()
}
