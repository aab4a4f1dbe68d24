package clab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// request is what a script asks of the engine.
type request struct {
	Do   string // startMain or killAll
	Node string
}

// reply is what it gets for an answer.
type reply struct {
	Error string `json:",omitempty"`
}

// control serves requests of scripts until it is closed.
type control struct {
	listener net.Listener
	serving  sync.WaitGroup
}

// patience is how long a script may take to say what it wants.
const patience = 10 * time.Second

// newControl listens. The answer comes when what was asked for has been done.
func newControl(socket string, answer func(request) error) (*control, error) {
	listener, err := new(net.ListenConfig).Listen(context.Background(), "unix", socket)
	if err != nil {
		return nil, fmt.Errorf("listen for scripts: %w", err)
	}
	c := &control{listener: listener}
	c.serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			c.serving.Go(func() { serve(conn, answer) })
		}
	})
	return c, nil
}

func serve(conn net.Conn, answer func(request) error) {
	defer conn.Close()
	_ = conn.SetReadDeadline(time.Now().Add(patience)) // it fails on a closed one, as reading does
	var asked request
	if json.NewDecoder(conn).Decode(&asked) != nil {
		return
	}
	var r reply
	if err := answer(asked); err != nil {
		r.Error = err.Error()
	}
	_ = json.NewEncoder(conn).Encode(r) // whoever has asked may be gone
}

// close stops listening, and waits for the answers under way.
func (c *control) close() error {
	err := c.listener.Close()
	c.serving.Wait()
	return err
}

// ask asks the engine that listens at a socket.
func ask(socket string, r request) error {
	conn, err := new(net.Dialer).DialContext(context.Background(), "unix", socket)
	if err != nil {
		return fmt.Errorf("%s node %s: the lab is gone: %w", r.Do, r.Node, err)
	}
	defer conn.Close()
	if err := json.NewEncoder(conn).Encode(r); err != nil {
		return fmt.Errorf("%s node %s: %w", r.Do, r.Node, err)
	}
	var answer reply
	if err := json.NewDecoder(conn).Decode(&answer); err != nil {
		return fmt.Errorf("%s node %s: the engine has not answered: %w", r.Do, r.Node, err)
	}
	if answer.Error != "" {
		return errors.New(answer.Error)
	}
	return nil
}
