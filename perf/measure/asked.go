package measure

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"time"

	"github.com/urfave/cli/v2"

	"weir/lab/netlab"
)

// Asked is a child that answers questions, a line each on its standard input, at
// whose end it ends. It is run by an [AskedCommand]. Its methods belong to one
// goroutine.
type Asked struct {
	*Child
	input io.WriteCloser
}

// StartAsked starts a command in the host, with its options as a further
// argument, and waits until it works.
func StartAsked(host *netlab.Host, cmd *exec.Cmd, opt any) (*Asked, error) {
	arg, err := json.Marshal(opt)
	if err != nil {
		return nil, fmt.Errorf("options: %w", err)
	}
	cmd.Args = append(cmd.Args, string(arg))
	input, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	c, err := StartChild(host, cmd)
	if err != nil {
		return nil, err
	}
	return &Asked{c, input}, nil
}

// Ask reads the answer to a question into v. A child that does not answer in good
// time, or before ctx ends, is killed.
func (a *Asked) Ask(ctx context.Context, question string, v any) error {
	return a.AskWithin(ctx, answerWithin, question, v)
}

// AskWithin is Ask for what may take longer.
func (a *Asked) AskWithin(ctx context.Context, within time.Duration, question string, v any) error {
	if _, err := fmt.Fprintln(a.input, question); err != nil {
		return fmt.Errorf("ask for %s: %w: %s", question, err, a.Process.Output())
	}
	if err := a.read(ctx, within, v); err != nil {
		return fmt.Errorf("ask for %s: %w", question, err)
	}
	return nil
}

// StopGrace is what most children need at most to end.
const StopGrace = 10 * time.Second

// Stop ends the child, and kills it if it has not ended within the grace time. One
// that was killed before is no error: Ask has told.
func (a *Asked) Stop(grace time.Duration) error {
	if a.killed {
		return nil
	}
	err := a.input.Close()
	if errors.Is(err, os.ErrClosed) { // by its end, of which Wait tells
		err = nil
	}
	select {
	case <-a.Process.Done():
	case <-time.After(grace):
		a.kill()
		err = errors.Join(err, fmt.Errorf("what is measured has not ended within %v", grace))
	}
	if ended := a.Process.Wait(); ended != nil {
		err = errors.Join(err, fmt.Errorf("%w: %s", ended, a.Process.Output()))
	}
	return err
}

// Server is what such a child does.
type Server interface {
	// Run works until ctx ends, or all is done. It is called once.
	Run(ctx context.Context) error

	// Threads returns the ids of the threads that are measured, once they run.
	Threads(ctx context.Context) ([]int, error)

	// Answer answers a question, with what can be written as JSON. Questions come
	// one after the other.
	Answer(ctx context.Context, question string) (any, error)
}

// ErrNoQuestion is returned by a [Server] for what it does not know.
var ErrNoQuestion = errors.New("no such question")

// AskedCommand returns the command of a server with options of type O, for those
// below a program's command perf. What open is to log goes where the measuring
// process looks when something is wrong.
func AskedCommand[O any](name string, open func(O, *slog.Logger) (Server, error)) *cli.Command {
	return &cli.Command{
		Name:   name,
		Hidden: true,
		Action: func(c *cli.Context) error {
			var opt O
			if err := json.Unmarshal([]byte(c.Args().First()), &opt); err != nil {
				return fmt.Errorf("run %s: options: %w", name, err)
			}
			s, err := open(opt, slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})))
			if err == nil {
				err = serve(c.Context, s, os.Stdin, os.Stdout)
			}
			if err != nil {
				return fmt.Errorf("run %s: %w", name, err)
			}
			return nil
		},
	}
}

// serve runs a server and has it answer until there is nothing more to answer, or
// it ends.
func serve(ctx context.Context, s Server, questions io.Reader, answers io.Writer) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() {
		ended <- s.Run(ctx)
		stop() // whoever waits for an answer, or a question
	}()
	err := answer(ctx, s, questions, json.NewEncoder(answers))
	stop()
	return errors.Join(err, <-ended)
}

// patience is how long a server may take to answer.
const patience = 10 * time.Second

func answer(ctx context.Context, s Server, questions io.Reader, answers *json.Encoder) error {
	within, cancel := context.WithTimeout(ctx, patience)
	threads, err := s.Threads(within)
	cancel()
	if err != nil {
		return err
	}
	if err := answers.Encode(Started{Threads: threads}); err != nil {
		return err
	}
	lines := make(chan string)
	var failed error // read after lines is closed
	go func() {
		defer close(lines)
		scanner := bufio.NewScanner(questions)
		for scanner.Scan() {
			select {
			case lines <- scanner.Text():
			case <-ctx.Done():
				return
			}
		}
		failed = scanner.Err()
	}()
	for {
		select {
		case <-ctx.Done(): // Run says why
			return nil
		case question, ok := <-lines:
			if !ok {
				return failed
			}
			within, cancel := context.WithTimeout(ctx, patience)
			v, err := s.Answer(within, question)
			cancel()
			if err != nil {
				return fmt.Errorf("%s: %w", question, err)
			}
			if err := answers.Encode(v); err != nil {
				return err
			}
		}
	}
}
