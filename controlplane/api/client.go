package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"
)

// answerTimeout bounds the wait for an answer: more than the server gives its
// workers, or a new configuration its next hops.
const answerTimeout = askTimeout + 3*time.Second

// Client asks a running weir.
type Client struct {
	socket string
	http   *http.Client
}

// NewClient makes a client for the weir that listens on a unix socket.
func NewClient(socket string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}
	return &Client{socket: socket, http: &http.Client{
		Transport: &http.Transport{DialContext: dial},
	}}
}

// Get reads a noun ("services", "flows?limit=10") into v.
func (c *Client) Get(ctx context.Context, noun string, v any) error {
	return c.do(ctx, http.MethodGet, noun, nil, v)
}

// Do carries out a verb ("reload", "drain?backend=10.0.0.11") and reads its
// answer into v. The error is Mistakes if weir has found any in a configuration.
func (c *Client) Do(ctx context.Context, verb string, v any) error {
	return c.do(ctx, http.MethodPost, verb, nil, v)
}

// Plan asks what a configuration would change, of which text is the file of this
// name. The error is Mistakes if weir has found any in it.
func (c *Client) Plan(ctx context.Context, name string, text []byte) (Plan, error) {
	var p Plan
	err := c.do(ctx, http.MethodPost, "plan?"+url.Values{"name": {name}}.Encode(), text, &p)
	return p, err
}

// patience is how long an answer may take.
func patience(what string) time.Duration {
	switch name, _, _ := strings.Cut(what, "?"); name {
	case "flows", "plan":
		return answerTimeout + listTimeout
	case "doctor":
		return answerTimeout + doctorTimeout
	}
	return answerTimeout
}

func (c *Client) do(ctx context.Context, method, what string, body []byte, v any) error {
	ctx, cancel := context.WithTimeout(ctx, patience(what))
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://weir/v1/"+what, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("ask weir: %w", err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return c.explain(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		var p Problem
		if err := json.NewDecoder(resp.Body).Decode(&p); err != nil || p.Error == "" {
			return fmt.Errorf("ask weir for %s: %s", what, resp.Status)
		}
		if len(p.Mistakes) > 0 {
			return Mistakes(p.Mistakes)
		}
		return errors.New(p.Error)
	}
	if err := json.NewDecoder(resp.Body).Decode(v); err != nil {
		return fmt.Errorf("read weir's answer: %w", err)
	}
	return nil
}

func (c *Client) explain(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("no weir is running on %s; start one with `weir run`, or name its socket with --socket", c.socket)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("no permission for %s; run this as root", c.socket)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("weir on %s does not answer; is its process stopped or starved?", c.socket)
	}
	return fmt.Errorf("ask weir on %s: %w", c.socket, err)
}
