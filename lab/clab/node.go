package clab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"weir/lab/netlab"
)

// node is the engine's side of a container: it has the node's first process
// start and kill what runs in the node.
type node struct {
	lab     *Lab
	spec    *Node
	holding holding

	// asking is held by who asks the first process for something, so that the next
	// answer is his.
	asking  sync.Mutex
	process *netlab.Process // nil until the node is created
	orders  *os.File
	answers chan event // closed when the first process has ended

	changing sync.Mutex // held by who kills or starts the node, from begin to end

	mu      sync.Mutex
	running bool // the main process, as far as is known
	closed  bool
	again   *time.Timer // starts it again; nil: nothing is to
	tries   int         // since it has last run for steady
	since   time.Time   // it was last started
}

// How long after its end a main process is started again: as Docker does, after
// twice as long each time, and from the start when it has run for a while
// (moby, restartmanager).
const (
	firstPause = 100 * time.Millisecond
	lastPause  = time.Minute
	steady     = 10 * time.Second
)

// newNode returns a node that is not there yet.
func newNode(l *Lab, spec *Node, weir string) *node {
	links := 0
	for _, link := range l.topology.Links {
		for _, e := range link.Ends {
			if e.Node == spec.Name {
				links++
			}
		}
	}
	own := map[string]string{"CLAB_INTFS": strconv.Itoa(links)}
	maps.Copy(own, spec.Env)
	binds := slices.Clone(spec.Binds)
	if spec.Weir {
		binds = append([]Bind{{Source: weir, Target: "/weir", ReadOnly: true}}, binds...)
	}
	return &node{lab: l, spec: spec, answers: make(chan event, 1), holding: holding{
		Hostname: spec.network(), // Docker has it so for a node that shares one
		Args:     spec.Args, Env: environ(spec.network(), own), Binds: binds,
	}}
}

// create makes the node's namespaces and its root, and starts its main process.
func (n *node) create(context.Context) error {
	host := n.lab.hosts[n.spec.network()]
	for _, key := range slices.Sorted(maps.Keys(n.spec.Sysctls)) {
		if err := host.Sysctl(key, n.spec.Sysctls[key]); err != nil {
			return err
		}
	}
	var err error
	if n.holding.Place, err = n.lab.place(n.spec.Name); err != nil {
		return err
	}
	if err := n.hold(host); err != nil {
		return err
	}
	if err := n.lab.writeNode(n.spec.Name, n.process.PID(), n.holding.Env); err != nil {
		return err
	}
	return n.start()
}

// hold starts the node's first process and waits until it has made the root.
func (n *node) hold(host *netlab.Host) error {
	cmd := exec.Command(n.lab.self, PartCommand, holdPart)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC}
	in, orders, err := os.Pipe()
	if err != nil {
		return err
	}
	events, out, err := os.Pipe()
	if err != nil {
		return errors.Join(err, in.Close(), orders.Close())
	}
	cmd.Stdin, cmd.Stdout = in, out
	process, err := host.Start(cmd)
	err = errors.Join(err, in.Close(), out.Close())
	if process == nil {
		return errors.Join(err, orders.Close(), events.Close())
	}
	n.mu.Lock()
	n.process, n.orders = process, orders
	n.mu.Unlock()
	go n.listen(events)
	if err != nil {
		return err
	}
	return n.ask(n.holding)
}

// listen passes answers on, and deals with the end of the main process. It owns
// the pipe.
func (n *node) listen(events *os.File) {
	defer events.Close()
	defer close(n.answers)
	decoder := json.NewDecoder(events)
	for {
		var e event
		if err := decoder.Decode(&e); err != nil {
			n.lost()
			return
		}
		if e.Is == ended {
			n.ended(e.Text) // before any answer that comes after it
			continue
		}
		n.answers <- e
	}
}

// lost takes note of the end of the first process, if nobody has asked for it.
func (n *node) lost() {
	n.mu.Lock()
	running := n.running
	n.running = false
	n.mu.Unlock()
	if running {
		n.lab.failure("node %s: %v", n.spec.Name, errors.Join(errGone, n.lab.setStopped(n.spec.Name, true)))
	}
}

// errGone is the end of a node's first process, and so of the node.
var errGone = errors.New("the node's first process has ended")

// ask asks the first process for something and waits until it is done.
func (n *node) ask(what any) error {
	n.asking.Lock()
	defer n.asking.Unlock()
	n.mu.Lock()
	orders := n.orders
	n.mu.Unlock()
	if orders == nil {
		return errors.New("the node is not there yet")
	}
	if err := json.NewEncoder(orders).Encode(what); err != nil && !errors.Is(err, unix.EPIPE) {
		return err
	}
	answer, ok := <-n.answers
	switch {
	case !ok:
		return fmt.Errorf("%w: %s", errGone, n.output())
	case answer.Is == failed:
		return errors.New(answer.Text)
	}
	return nil
}

// start starts the main process.
func (n *node) start() error {
	n.mu.Lock()
	n.since = time.Now()
	n.mu.Unlock()
	// Before, as it may end at once.
	if err := n.setRunning(true); err != nil {
		return err
	}
	if err := n.ask(startMain); err != nil {
		return errors.Join(err, n.setRunning(false))
	}
	return nil
}

// startAgain starts the main process for a person or a script.
func (n *node) startAgain() error {
	n.changing.Lock()
	defer n.changing.Unlock()
	n.mu.Lock()
	running := n.running
	if n.again != nil {
		n.again.Stop()
		n.again = nil
	}
	n.mu.Unlock()
	if running {
		return nil
	}
	if owner := n.lab.nodes[n.spec.network()]; owner != n && !owner.isRunning() {
		return fmt.Errorf("start node %s: node %s, whose network it uses, is not running", n.spec.Name, owner.spec.Name)
	}
	if err := n.start(); err != nil {
		return fmt.Errorf("start node %s: %w", n.spec.Name, err)
	}
	return nil
}

// kill kills all that runs in the node.
func (n *node) kill() error {
	n.changing.Lock()
	defer n.changing.Unlock()
	n.mu.Lock()
	waiting := n.again != nil && n.again.Stop()
	n.again = nil
	running := n.running
	n.mu.Unlock()
	if !running && !waiting {
		return fmt.Errorf("kill node %s: it is not running", n.spec.Name)
	}
	// Before, so that nobody gets in any more.
	err := n.setRunning(false)
	if err == nil {
		err = n.ask(killAll)
	}
	if err == nil {
		err = n.lab.dropCables(n.spec.network())
	}
	if err != nil {
		return fmt.Errorf("kill node %s: %w", n.spec.Name, err)
	}
	return nil
}

// ended deals with a main process that has ended by itself: it is started again
// as the node's restart policy has it, but for one of a node with links, which
// Docker would start without any. Its first process has killed the rest already.
func (n *node) ended(how string) {
	n.mu.Lock()
	if n.closed || !n.running {
		n.mu.Unlock()
		return // killed
	}
	n.running = false
	err := n.lab.setStopped(n.spec.Name, true) // before it can be started again
	if time.Since(n.since) > steady {
		n.tries = 0
	}
	pause := min(firstPause<<min(n.tries, 20), lastPause)
	n.tries++
	policy := n.spec.Restart
	restart := n.spec.Shares != "" && (policy == RestartAlways || policy == RestartUnlessStopped || policy == RestartOnFailure && how != inWords(0))
	if restart {
		n.again = time.AfterFunc(pause, n.restart)
	}
	n.mu.Unlock()
	then := "and is not started again"
	if restart {
		then = fmt.Sprintf("and is started again in %v", pause)
	}
	// What it has said comes by another way than its end, and may be late.
	if last := lastLine(n.output()); last != "" {
		then += "; it has said: " + last
	}
	n.lab.failure("node %s: %s has ended by itself (%s) %s", n.spec.Name, n.spec.Args[0], how, then)
	if err := errors.Join(err, n.lab.dropCables(n.spec.network())); err != nil && !n.isClosed() {
		n.lab.failure("node %s: %v", n.spec.Name, err)
	}
}

// lastLine returns the last line of a text that has something on it.
func lastLine(text string) string {
	text = strings.TrimSpace(text)
	return text[strings.LastIndexByte(text, '\n')+1:]
}

// restart starts the main process when its time has come.
func (n *node) restart() {
	n.mu.Lock()
	n.again = nil
	closed := n.closed
	n.mu.Unlock()
	if closed {
		return
	}
	if err := n.startAgain(); err != nil && !n.isClosed() {
		n.lab.failure("%v", err)
	}
}

func (n *node) setRunning(running bool) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.running = running
	return n.lab.setStopped(n.spec.Name, !running)
}

func (n *node) isRunning() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.running
}

func (n *node) isClosed() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.closed
}

// output returns what the main process has written.
func (n *node) output() string {
	n.mu.Lock()
	p := n.process
	n.mu.Unlock()
	if p == nil {
		return ""
	}
	return p.Output()
}

// close lets go of the first process, which then ends.
func (n *node) close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return
	}
	n.closed, n.running = true, false
	if n.again != nil {
		n.again.Stop()
	}
	if n.orders != nil {
		_ = n.orders.Close() // who is asking gets an error
	}
}
