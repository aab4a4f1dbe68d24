package appliance

import (
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
)

// terminal connects to the serial console.
func (a *appliance) terminal(t *testing.T) (c net.Conn) {
	t.Helper()
	a.await(t, "the serial console is there", func() (err error) {
		c, err = net.Dial("unix", a.file("console.sock"))
		return err
	})
	return c
}

// noise is on the serial line until the test ends, for whoever reads it first: GRUB.
func (a *appliance) noise(t *testing.T) {
	t.Helper()
	c := a.terminal(t)
	t.Cleanup(func() { c.Close() })
	go func() { _, _ = io.Copy(io.Discard, c) }() // until Close
	if _, err := io.WriteString(c, "noise\r\n"); err != nil {
		t.Fatal(err)
	}
}

// transcript keeps what a terminal shows.
type transcript struct {
	mu   sync.Mutex
	text []byte
}

func (tr *transcript) Write(b []byte) (int, error) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.text = append(tr.text, b...)
	return len(b), nil
}

// after returns what has been shown since there were so many bytes, as text.
func (tr *transcript) after(mark int) string {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return control.ReplaceAllString(string(tr.text[mark:]), "")
}

func (tr *transcript) len() int {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return len(tr.text)
}

// prompt logs in at the serial console, where weir doctor says at once that near's
// backend has no VIP yet. It reads the terminal and not QEMU's log of it, which has
// characters twice when somebody reads slowly.
func (a *appliance) prompt(t *testing.T) {
	c := a.terminal(t)
	defer c.Close()
	var shown transcript
	go func() { _, _ = io.Copy(&shown, c) }() // until Close
	for _, dialogue := range []struct{ answer, until string }{
		{"", "lb1 login:"},
		{"root", "Password:"},
		{password, "FAIL"},
		{"", "root@lb1:"},
		{"exit", "lb1 login:"},
	} {
		mark := shown.len()
		if _, err := io.WriteString(c, dialogue.answer+"\n"); err != nil {
			t.Fatal(err)
		}
		a.await(t, "the console says "+dialogue.until, func() error {
			if text := shown.after(mark); !strings.Contains(text, dialogue.until) {
				return fmt.Errorf("it says %q", text)
			}
			return nil
		})
	}
}
