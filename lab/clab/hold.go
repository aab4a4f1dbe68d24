package clab

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// holding is what the engine tells the first process of a node.
type holding struct {
	Place    string // an empty directory of the machine, for the node's root
	Hostname string
	Args     []string // of the main process
	Env      []string
	Binds    []Bind
}

// What the engine asks of a node's first process, and what that says. An event
// that is no answer is the end of the main process by itself.
const (
	startMain = "start"
	killAll   = "kill"

	ready  = "ready"  // after the first message
	done   = "done"   // as asked
	failed = "failed" // with the reason
	ended  = "ended"  // with the exit status in words
)

// event is one thing that a node's first process says.
type event struct {
	Is   string
	Text string `json:",omitempty"`
}

// hold is the first process of a node. It is there for as long as the lab is,
// whatever becomes of the node's main process: it holds the node's namespaces,
// it reaps, and all that runs in the node dies with it. It gives itself the root
// that it is told, and then starts and kills as it is asked, until nobody is left
// to ask.
func hold(from io.Reader, to io.Writer) error {
	// A process of the node that signals its whole namespace doesn't mean this
	// one. What is started would inherit that signals are ignored; a handler, it
	// does not.
	signal.Notify(make(chan os.Signal, 1), unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT)
	children := make(chan os.Signal, 1)
	signal.Notify(children, unix.SIGCHLD)

	orders := json.NewDecoder(from)
	h := holder{events: json.NewEncoder(to)}
	err := orders.Decode(&h.holding)
	if err == nil {
		err = h.enter()
	}
	if err != nil {
		return errors.Join(err, h.say(failed, err.Error()))
	}
	if err := h.say(ready, ""); err != nil {
		return err
	}
	asked := make(chan string)
	go func() {
		defer close(asked)
		for {
			var what string
			if orders.Decode(&what) != nil {
				return // the engine has gone
			}
			asked <- what
		}
	}()
	for {
		select {
		case what, ok := <-asked:
			if !ok {
				return nil
			}
			err = h.do(what)
		case <-children:
			err = h.reap()
		}
		if err != nil {
			return err
		}
	}
}

// holder is the state of a node's first process. One goroutine has it.
type holder struct {
	holding
	events *json.Encoder
	main   int // process id of the main process; 0: it does not run
}

func (h *holder) say(is, text string) error {
	if err := h.events.Encode(event{is, text}); err != nil {
		return fmt.Errorf("tell the engine %s: %w", is, err)
	}
	return nil
}

func (h *holder) do(what string) error {
	switch {
	case what == killAll:
		h.main = 0
		if err := killRest(); err != nil {
			return h.say(failed, err.Error())
		}
	case what == startMain && h.main == 0:
		if err := h.start(); err != nil {
			return h.say(failed, err.Error())
		}
	}
	return h.say(done, "")
}

// start starts the main process. It has a session of its own, and says what it
// says where this process does.
func (h *holder) start() error {
	path, err := exec.LookPath(h.Args[0])
	if err != nil {
		return err
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer null.Close()
	pid, err := syscall.ForkExec(path, h.Args, &syscall.ProcAttr{
		Dir:   "/",
		Env:   h.Env,
		Files: []uintptr{null.Fd(), os.Stderr.Fd(), os.Stderr.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return fmt.Errorf("start %s: %w", path, err)
	}
	h.main = pid
	return nil
}

// reap takes note of ended children. When the main process is one, the node has
// ended, as a container would have, and all that is left in it dies.
func (h *holder) reap() error {
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil || pid == 0: // ECHILD: there is none
			return nil
		case pid != h.main:
			continue
		}
		h.main = 0
		if err := killRest(); err != nil {
			return err
		}
		return h.say(ended, inWords(status))
	}
}

// killRest kills all processes of the node but this one and waits until those that
// are its children are gone.
func killRest() error {
	if err := unix.Kill(-1, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill the node's processes: %w", err)
	}
	for {
		_, err := unix.Wait4(-1, nil, 0, nil)
		if errors.Is(err, unix.ECHILD) {
			return nil
		}
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for the node's processes: %w", err)
		}
	}
}

// inWords says how a process has ended.
func inWords(status unix.WaitStatus) string {
	if status.Signaled() {
		return "signal: " + status.Signal().String()
	}
	return fmt.Sprintf("exit status %d", status.ExitStatus())
}
