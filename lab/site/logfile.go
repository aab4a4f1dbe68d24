package site

import (
	"bytes"
	"errors"
	"io"
	"os"
)

// logFile collects what weir writes in a file, and passes it on. It belongs to
// the process's copying goroutine, but for String.
type logFile struct {
	path string
	file *os.File
	also io.Writer
}

func (l *logFile) open(path string, also io.Writer) (err error) {
	l.path, l.also = path, also
	l.file, err = os.Create(path)
	return err
}

// Write implements [io.Writer].
func (l *logFile) Write(b []byte) (int, error) {
	if l.also != nil {
		if n, err := l.also.Write(b); err != nil {
			return n, err
		}
	}
	return l.file.Write(b)
}

func (l *logFile) String() string {
	text, err := os.ReadFile(l.path)
	if err != nil {
		return err.Error()
	}
	return string(bytes.TrimRight(text, "\n"))
}

func (l *logFile) close() error {
	if l.file == nil {
		return nil
	}
	err := l.file.Close()
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}
