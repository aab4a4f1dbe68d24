package perf

import (
	"bytes"
	"fmt"
	"io"
	"time"
)

// progress takes a measurement's log, a line at a time, and tells now and then how
// far it is. What is more than information is passed on.
type progress struct {
	to          io.Writer
	what        string
	begun, told time.Time
	lines       int
}

// progressEvery is how often there is a line.
const progressEvery = 15 * time.Second

func (p *progress) Write(b []byte) (int, error) {
	if !bytes.Contains(b, []byte("level=INFO")) {
		return p.to.Write(b)
	}
	p.lines++
	if now := time.Now(); now.Sub(p.told) >= progressEvery {
		p.told = now
		if _, err := fmt.Fprintf(p.to, "%s: %d measured after %v\n", p.what, p.lines, now.Sub(p.begun).Round(time.Second)); err != nil {
			return 0, err
		}
	}
	return len(b), nil
}
