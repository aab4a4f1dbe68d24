package perf

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"time"

	"weir/perf/measure"
)

// progress takes a measurement's log, a line at a time, and tells now and then how
// far it is. What is more than information is passed on.
type progress struct {
	to          io.Writer
	what        string
	begun, told time.Time
	lines       int // where the log does not count
}

// progressEvery is how often there is a line.
const progressEvery = 15 * time.Second

func (p *progress) Write(b []byte) (int, error) {
	if !bytes.Contains(b, []byte("level=INFO")) {
		return p.to.Write(b)
	}
	p.lines++
	done := fmt.Sprint(p.lines)
	if _, after, ok := bytes.Cut(b, []byte(" "+measure.ProgressKey+"=")); ok {
		after, _, _ = bytes.Cut(after, []byte(" "))
		done = strings.Replace(strings.TrimSpace(string(after)), "/", " of ", 1)
	}
	if now := time.Now(); now.Sub(p.told) >= progressEvery {
		p.told = now
		if _, err := fmt.Fprintf(p.to, "%s: %s measured after %v\n", p.what, done, now.Sub(p.begun).Round(time.Second)); err != nil {
			return 0, err
		}
	}
	return len(b), nil
}
