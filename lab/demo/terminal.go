package demo

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// plainEvery is how often a line is printed where there is no terminal.
const plainEvery = 5 * time.Second

// terminal writes to the user: on a terminal in place, elsewhere in lines one
// after the other. It belongs to one goroutine at a time.
type terminal struct {
	out    io.Writer
	tty    *os.File // nil if lines are wanted
	colour bool

	drawn  int           // lines of the table that the cursor is below
	next   time.Duration // when the next line is due
	events int           // printed already, where there is no terminal
}

func newTerminal(out io.Writer, plain bool) *terminal {
	t := &terminal{out: out, next: plainEvery}
	file, ok := out.(*os.File)
	if !ok || plain || os.Getenv("TERM") == "dumb" {
		return t
	}
	if _, err := unix.IoctlGetWinsize(int(file.Fd()), unix.TIOCGWINSZ); err != nil {
		return t
	}
	t.tty = file
	t.colour = os.Getenv("NO_COLOR") == "" // https://no-color.org
	return t
}

// printf writes below all that is there.
func (t *terminal) printf(format string, args ...any) {
	t.drawn = 0
	fmt.Fprintf(t.out, format, args...)
}

// size returns the terminal's columns and rows. One that does not know is taken
// for the smallest usual one.
func (t *terminal) size() (width, height int) {
	ws, err := unix.IoctlGetWinsize(int(t.tty.Fd()), unix.TIOCGWINSZ)
	if err != nil || ws.Col == 0 || ws.Row == 0 {
		return 80, 24
	}
	return int(ws.Col), int(ws.Row)
}

// show shows the state; last says that it is for the last time. On a terminal
// it takes the place of the one before. Elsewhere, events are printed as they
// happen, and one line every few seconds.
func (t *terminal) show(s *state, last bool) error {
	var b strings.Builder
	if t.tty != nil {
		width, height := t.size()
		lines := render(s, width, height-1, t.colour)
		if t.drawn > 0 {
			fmt.Fprintf(&b, "\x1b[%dA\r", t.drawn) // CUU
		}
		for _, line := range lines {
			b.WriteString("\x1b[K" + line + "\n") // EL
		}
		b.WriteString("\x1b[J") // ED: lines that are not there any more
		t.drawn = len(lines)
	} else {
		for _, e := range s.events[t.events:] {
			fmt.Fprintln(&b, e)
		}
		t.events = len(s.events)
		if last || s.elapsed >= t.next && s.elapsed < s.total {
			fmt.Fprintln(&b, plainLine(s))
			t.next = s.elapsed.Truncate(plainEvery) + plainEvery
		}
	}
	if _, err := io.WriteString(t.out, b.String()); err != nil {
		return fmt.Errorf("show state: %w", err)
	}
	return nil
}

// journal keeps the events. It may be used by several goroutines.
type journal struct {
	news chan struct{} // there are new events; capacity 1

	mu      sync.Mutex
	started time.Time
	events  []event
}

func newJournal() *journal { return &journal{news: make(chan struct{}, 1)} }

// begin sets the time that events are counted from.
func (j *journal) begin(started time.Time) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.started = started
}

// note adds an event that happens now.
func (j *journal) note(kind eventKind, text string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.events = append(j.events, event{time.Since(j.started), kind, text})
	select {
	case j.news <- struct{}{}:
	default:
	}
}

// all returns the events so far. None of them is ever changed.
func (j *journal) all() []event {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.events[:len(j.events):len(j.events)]
}
