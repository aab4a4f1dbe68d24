package measure

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weir/lab/labtest"
	"weir/lab/netlab"
)

var (
	errRun    = errors.New("the queue has gone")
	errThread = errors.New("no worker")
)

// playedServer is a server. It ends when ctx does, or is told to.
type playedServer struct {
	threads error
	end     chan error
}

func (p *playedServer) Run(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case err := <-p.end:
		return err
	}
}

func (p *playedServer) Threads(context.Context) ([]int, error) { return []int{7, 8}, p.threads }

func (p *playedServer) Answer(ctx context.Context, question string) (any, error) {
	switch question {
	case "length":
		return len(question), nil
	case "end": // and never answers, as a worker that has ended
		p.end <- errRun
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return nil, ErrNoQuestion
}

// A server answers until there are no more questions, or it ends, and says what
// went wrong.
func TestServe(t *testing.T) {
	const started = `{"threads":[7,8]}` + "\n"
	for name, test := range map[string]struct {
		threads   error
		questions string
		open      bool // is there more to come?
		runs      error
		answers   string
		want      error
	}{
		"no question":      {answers: started},
		"two":              {questions: "length\nlength\n", answers: started + "6\n6\n"},
		"unknown":          {questions: "length\nlengths\nlength\n", answers: started + "6\n", want: ErrNoQuestion},
		"too long":         {questions: strings.Repeat("x", bufio.MaxScanTokenSize+1), answers: started, want: bufio.ErrTooLong},
		"no threads":       {threads: errThread, want: errThread},
		"ends in between":  {questions: "length\nend\nlength\n", answers: started + "6\n", want: errRun},
		"ends with no one": {open: true, runs: errRun, answers: started, want: errRun},
	} {
		t.Run(name, func(t *testing.T) {
			p := &playedServer{threads: test.threads, end: make(chan error, 1)}
			var questions io.Reader = strings.NewReader(test.questions)
			var answers strings.Builder
			out := io.Writer(&answers)
			if test.open {
				r, w := io.Pipe()
				defer w.Close()
				questions = r
				out = &onWrite{Writer: out, then: func() { p.end <- test.runs }}
			}
			if err := serve(t.Context(), p, questions, out); !errors.Is(err, test.want) || test.want == nil && err != nil {
				t.Errorf("error %v, want %v", err, test.want)
			}
			if answers.String() != test.answers {
				t.Errorf("answers %q, want %q", answers.String(), test.answers)
			}
		})
	}
}

// onWrite calls then after each write.
type onWrite struct {
	io.Writer
	then func()
}

func (w *onWrite) Write(b []byte) (int, error) {
	n, err := w.Writer.Write(b)
	w.then()
	return n, err
}

// Nobody waits for a child that hangs, and none is left behind.
func TestAsked(t *testing.T) {
	labtest.NeedRoot(t)
	lab, err := netlab.New("asked")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := lab.Close(); err != nil {
			t.Error(err)
		}
	})
	host, err := lab.Host("host")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := StartAsked(host, exec.Command("sh", "-c", "echo why >&2; exit 3"), 5); err == nil || !strings.Contains(err.Error(), "why") {
		t.Errorf("a child that does not start: %v", err)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	const hangs = "while :; do sleep 1000; done" // also after the end of its input
	for name, test := range map[string]struct {
		script string
		ctx    context.Context
		within time.Duration
		want   string // in the error of Ask; empty for none
		killed bool
		stop   string // in the error of Stop
	}{
		"answers":      {"read q; echo 5; read q || true", t.Context(), time.Minute, "", false, ""},
		"options":      {"read q; echo $0; read q || true", t.Context(), time.Minute, "", false, ""},
		"has ended":    {"read q; echo why >&2; exit 3", t.Context(), time.Minute, "why", false, "exit status 3"},
		"hangs":        {hangs, t.Context(), time.Millisecond, context.DeadlineExceeded.Error(), true, ""},
		"is given up":  {hangs, over, time.Minute, context.Canceled.Error(), true, ""},
		"does not end": {"read q; echo 5; " + hangs, t.Context(), time.Minute, "", true, "has not ended"},
		"ends badly":   {"read q; echo 5; read q; exit 4", t.Context(), time.Minute, "", false, "exit status 4"},
	} {
		t.Run(name, func(t *testing.T) {
			a, err := StartAsked(host, exec.Command("sh", "-c", "trap '' TERM; echo '{}'; "+test.script), 5)
			if err != nil {
				t.Fatal(err)
			}
			var v int
			err = a.AskWithin(test.ctx, test.within, "five", &v)
			if test.want == "" && (err != nil || v != 5) || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("answer %d, error %v, want %q", v, err, test.want)
			}
			grace := time.Minute
			if test.killed {
				grace = time.Millisecond
			}
			err = a.Stop(grace)
			if test.stop == "" && err != nil || test.stop != "" && (err == nil || !strings.Contains(err.Error(), test.stop)) {
				t.Errorf("stop: %v, want %q", err, test.stop)
			}
			if err := unix.Kill(a.Process.PID(), 0); !errors.Is(err, unix.ESRCH) {
				t.Errorf("the process is still there: %v", err)
			}
		})
	}
}
